import { Command } from 'commander';
import { verifyStore } from '../cache/verify.ts';
import type { Verdict } from '../cache/verify.ts';
import type { Digest } from '../oci/digest.ts';
import { CommandError } from './io.ts';
import type { Io } from './io.ts';
import { formatBytes, formatCount, showProgress } from './show.ts';
import { withStoreOptions, withWorkbench } from './workbench.ts';
import type { StoreFlags, Workbench } from './workbench.ts';

interface VerifyFlags extends StoreFlags {
  readonly repair: boolean;
}

export function verifyCommand(io: Io): Command {
  return withStoreOptions(
    new Command('verify')
      .description('reads all that the store holds; what is wrong is fetched again, or removed')
      .option('--no-repair', 'only remove what is wrong: no upstream is asked'),
  )
    .addHelpText('after', '\nExample:\n  narrows verify --store /var/lib/narrows')
    .action((flags: VerifyFlags) => withWorkbench(flags, io, (bench) => verify(bench, flags, io)));
}

async function verify({ storage, pull }: Workbench, flags: VerifyFlags, io: Io): Promise<void> {
  await storage.reconciled;
  const { catalog, disk } = storage;
  const progress = showProgress(io, 'verifying', catalog.totalBytes());
  const verdict = await verifyStore({ catalog, disk, onRead: progress.add });
  progress.end();
  const broken = [...verdict.wrong, ...verdict.lost];
  const repaired = flags.repair && broken.length > 0 ? await repair(broken, storage, pull) : [];
  if (flags.json) io.out(`${JSON.stringify({ ...verdict, repaired }, undefined, 2)}\n`);
  else io.out(sentence(verdict, repaired));
  const removed = verdict.wrong.filter((digest) => !repaired.includes(digest)).length;
  if (removed > 0) throw new CommandError(1, `${formatCount(removed, 'wrong blob')} removed, and not fetched again.`);
  if (verdict.unreadable.length > 0) {
    throw new CommandError(
      1,
      `${formatCount(verdict.unreadable.length, 'blob')} could not be read; the disk may be failing.`,
    );
  }
}

/** Any repository that is known to hold it will do: the bytes are the digest's. */
async function repair(
  broken: readonly Digest[],
  { records }: Workbench['storage'],
  pull: Workbench['pull'],
): Promise<Digest[]> {
  const wanted = new Set<string>(broken);
  const repositories = new Map<string, string[]>();
  for (const space of [records.manifests, records.blobs]) {
    for await (const key of space.keys()) {
      const at = key.lastIndexOf('@');
      const digest = key.slice(at + 1);
      if (wanted.has(digest)) repositories.set(digest, [...(repositories.get(digest) ?? []), key.slice(0, at)]);
    }
  }
  const repaired: Digest[] = [];
  for (const digest of broken) {
    for (const repository of repositories.get(digest) ?? []) {
      if (!(await pull.obtain(repository, digest))) continue;
      repaired.push(digest);
      break;
    }
  }
  return repaired;
}

function sentence({ blobs, bytes, wrong, lost, unreadable }: Verdict, repaired: readonly Digest[]): string {
  const outcome = (digest: Digest, otherwise: string) => (repaired.includes(digest) ? 'fetched again' : otherwise);
  const lines = [
    ...wrong.map((digest) => `${digest} was not what its name says; ${outcome(digest, 'removed')}\n`),
    ...lost.map((digest) => `${digest} was in the books and not there; ${outcome(digest, 'struck off')}\n`),
    ...unreadable.map((digest) => `${digest} could not be read to its end; left as it is\n`),
  ];
  const rest = wrong.length === 0 ? 'all of them right' : `${wrong.length} of them wrong`;
  return `${lines.join('')}${formatCount(blobs, 'blob')}, ${formatBytes(bytes)}, ${rest}\n`;
}
