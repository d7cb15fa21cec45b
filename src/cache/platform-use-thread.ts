import { DatabaseSync } from 'node:sqlite';
import { parentPort, workerData } from 'node:worker_threads';

/** What is on the disk for one platform, for `several`, or for nobody knows what (`unknown`). */
export interface PlatformUse {
  readonly platform: string;
  readonly bytes: number;
  readonly blobs: number;
}

// An index says the platforms of its images, an image may say its own; blobs serve what the images that list them do.
const byPlatform = `
  WITH placed (digest, platform) AS (
    SELECT child, platform FROM links WHERE platform NOT IN ('', 'unknown') UNION SELECT digest, platform FROM images
  ), parts (digest, platform) AS (
    SELECT digest, platform FROM placed
    UNION SELECT links.child, placed.platform FROM placed JOIN links ON links.parent = placed.digest
      WHERE links.platform = ''
  ), each_digest (digest, platform, platforms) AS (
    SELECT digest, MIN(platform), COUNT(*) FROM parts GROUP BY digest
  )
  SELECT CASE WHEN platforms IS NULL THEN 'unknown' WHEN platforms = 1 THEN platform ELSE 'several' END AS use,
    SUM(bytes) AS bytes, COUNT(*) AS blobs
  FROM content LEFT JOIN each_digest USING (digest) GROUP BY use ORDER BY bytes DESC
`;

const database = new DatabaseSync(workerData as string, { readOnly: true });
const rows = database.prepare(byPlatform).all();
database.close();
parentPort?.postMessage(
  rows.map(({ use, bytes, blobs }): PlatformUse => ({
    platform: String(use),
    bytes: Number(bytes),
    blobs: Number(blobs),
  })),
);
