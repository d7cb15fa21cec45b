import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { hashSync } from 'bcryptjs';
import { chromium } from 'playwright-core';
import type { HTTPCredentials, Page } from 'playwright-core';
import t from 'tap';
import type { Test } from 'tap';
import { startAdmin } from '../../src/admin/server.ts';
import type { AdminOptions } from '../../src/admin/server.ts';
import { requireProgram } from '../fixtures/clients.ts';
import { download, until } from '../fixtures/downloads.ts';
import { buildImage } from '../fixtures/images.ts';
import { containerdAccept as accept, startTestMirror, temporaryFolder } from '../fixtures/mirror.ts';
import type { MirrorOptions } from '../fixtures/mirror.ts';
import { startRegistry } from '../fixtures/registry.ts';
import type { Live } from '../../src/wiring/live.ts';

/** The page that people look at, in a browser of theirs. */
const flags =
  '--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync';
const axe = readFileSync(new URL(import.meta.resolve('axe-core/axe.min.js')), 'utf8');
const image = buildImage({ platforms: ['linux/amd64', 'linux/arm64'], payloadBytes: 3_000_000, seed: 'dashboard' });
const arm = image.children[1]!;
const layer = arm.layers[0]!;
const path = '/p/linux-arm64/v2/up/team/app';

interface Watched {
  readonly page: Page;
  /** What a browser says to developers, and what it could not get or got from elsewhere. */
  readonly complaints: string[];
}

/** A browser with a profile of its own, at a page that is watched from its first request on. */
async function open(t: Test, program: string, url: string, user?: HTTPCredentials): Promise<Watched> {
  const context = await chromium.launchPersistentContext(await temporaryFolder(t), {
    executablePath: program,
    args: flags.split(' '),
    viewport: { width: 1280, height: 900 },
    ...(user && { httpCredentials: user }),
  });
  t.teardown(() => context.close());
  const page = await context.newPage();
  const complaints: string[] = [];
  page.on('console', (message) => complaints.push(`${message.type()}: ${message.text()}`));
  page.on('pageerror', (error) => complaints.push(error.message));
  page.on('requestfailed', (request) => complaints.push(`${request.url()}: ${request.failure()?.errorText}`));
  page.on('request', (request) => {
    if (!request.url().startsWith(`${url}/`) && !request.url().startsWith('data:')) complaints.push(request.url());
  });
  page.on('response', (response) => {
    if (response.status() >= 400) complaints.push(`${response.status()} ${response.url()}`);
  });
  await page.goto(`${url}/`);
  return { page, complaints };
}

async function start(t: Test, program: string, config: MirrorOptions['config'] = {}) {
  const registry = await startRegistry();
  t.teardown(() => registry.close());
  registry.putImage('team/app', '1', image);
  const mirror = await startTestMirror(t, { upstreams: { up: registry.url }, config });
  const pull = async () => {
    await mirror.get(`${path}/manifests/1`, { accept });
    return [arm.config, ...arm.layers].map(({ digest }) => download(`${mirror.url}${path}/blobs/${digest}`));
  };
  return { registry, mirror, pull, ...(await open(t, program, mirror.adminUrl)) };
}

/** What is wider than its place, as far as eyes can see it. */
const stickingOut = `[...document.querySelectorAll('header, section, section *:not(.unseen, canvas)')]
  .filter((one) => one.checkVisibility())
  .filter((one) => one.getBoundingClientRect().right > (one.closest('section') ?? document.body).getBoundingClientRect().right)
  .map((one) => one.outerHTML.slice(0, 80))`;

/** When something of it was to be seen; 0 before that. */
function paintMs(page: Page): Promise<number> {
  return page.evaluate<number>(`performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0`);
}

async function textOf(page: Page, selector: string): Promise<string> {
  return (await page.locator(selector).textContent()) ?? '';
}

void t.test('dashboard: a pull is seen while it goes on, and what it did not move', async (t) => {
  const program = await requireProgram(t, 'chromium');
  if (program === undefined) return;
  const { registry, page, pull, complaints } = await start(t, program);
  await page.locator('#state.ready').waitFor();
  t.equal(await page.title(), 'narrows');
  t.equal(await textOf(page, '#spared'), '0 B');
  registry.blobBytesPerSecond = 600_000;
  const pulled = await pull();
  const row = page.locator('#downloads > li').filter({ hasText: layer.digest.slice(7, 19) });
  await row.waitFor();
  t.match(await row.textContent(), /up\/team\/app.*linux\/arm64.* of 2\.\d\d MiB.*1 reader/);
  const progress = row.getByRole('progressbar', { name: `up/team/app, ${layer.digest.slice(7, 19)}` });
  const value = () => progress.evaluate((node: { value: number }) => node.value);
  const first = await value();
  await until(async () => (await value()) > first, 'the bar to grow');
  t.equal(await row.locator('button').getAttribute('title'), layer.digest, 'the whole digest is there to be seen');
  for (const { isComplete } of await Promise.all(pulled)) t.ok(isComplete);
  await page
    .locator('#landed > li')
    .filter({ hasText: layer.digest.slice(7, 19) })
    .waitFor();
  t.match(await page.locator('#landed').textContent(), /up\/team\/app.*✓?\s?landed/);
  t.equal(await row.count(), 0);
  t.match(await textOf(page, '#spared'), /^2\.\d\d MiB$/);
  await until(async () => /^2\.\d\d MiB$/.test(await textOf(page, '#fetched')), 'what came from upstreams');
  t.match(await page.locator('#rates tbody tr').first().textContent(), /^linux\/arm64.*MiB$/);
  t.match(await textOf(page, '#upstreams'), /^up\d+ requests · 2\.\d\d MiB/);
  t.same(complaints, []);
});

void t.test('dashboard: an image is searched for, and opened, and only then asked about', async (t) => {
  const program = await requireProgram(t, 'chromium');
  if (program === undefined) return;
  const { registry, mirror, page, pull, complaints } = await start(t, program);
  for (let at = 0; at < 60; at += 1) registry.putImage(`many/app-${at}`, '1', image);
  for (let at = 0; at < 60; at += 1) await mirror.get(`/p/linux-arm64/v2/up/many/app-${at}/manifests/1`, { accept });
  await Promise.all(await pull());
  const rows = page.locator('#image-rows > li');
  await page.getByRole('button', { name: 'Look again' }).click();
  await until(async () => (await rows.count()) === 50, 'the first page');
  await page.getByRole('button', { name: 'More' }).click();
  await until(async () => (await rows.count()) === 61, 'all of them');
  t.equal(await textOf(page, '#images-sum'), '61 images');

  const inspected: string[] = [];
  page.on('request', (request) => request.url().includes('/api/inspect') && inspected.push(request.url()));
  await page.getByRole('searchbox', { name: 'Name has' }).fill('TEAM/');
  await until(async () => (await rows.count()) === 1, 'the one that fits');
  t.match(await rows.textContent(), /^up\/team\/app:1/);
  t.same(inspected, [], 'nobody opened one');
  await rows.locator('summary').click();
  await page.locator('.inspection table').waitFor();
  t.equal(inspected.length, 1);
  const platform = (name: string) => page.locator('.inspection').getByRole('row', { name });
  t.match(await platform('linux/arm64').textContent(), /present\d.*MiB$/);
  t.match(await platform('linux/amd64').textContent(), /absent/);
  await page.getByRole('searchbox').fill('no such name');
  await until(async () => (await rows.count()) === 0, 'none');
  t.match(await textOf(page, '#images-sum'), /^No image here/);
  t.same(complaints, []);
});

void t.test('dashboard: all of it is reached by keys, in the order of the page', async (t) => {
  const program = await requireProgram(t, 'chromium');
  if (program === undefined) return;
  const { registry, page, pull } = await start(t, program);
  registry.blobBytesPerSecond = 1_500_000;
  await Promise.all(await pull());
  await page.locator('#landed > li').first().waitFor();
  await page.getByRole('button', { name: 'Look again' }).click();
  await page.locator('#image-rows > li').waitFor();
  const wanted = await page.evaluate(
    `[...document.querySelectorAll('a[href], button, input, summary')].filter((one) => one.checkVisibility()).length`,
  );
  const next = async () => {
    await page.keyboard.press('Tab');
    return page.evaluate<string>(
      `document.activeElement === document.body ? '' : document.activeElement.outerHTML.slice(0, 200)`,
    );
  };
  // From where it was clicked to the end, and then once around.
  while ((await next()) !== '');
  const reached: string[] = [];
  for (let focused = await next(); focused !== '' && reached.length < 50; focused = await next()) {
    reached.push(focused);
    const outline = await page.evaluate<string>(`getComputedStyle(document.activeElement).outlineStyle`);
    t.not(outline, 'none', `${focused} shows that it has the focus`);
  }
  t.equal(reached.length, wanted);
  await page.locator('summary').focus();
  await page.keyboard.press('Enter');
  await page.locator('.inspection').getByRole('row', { name: 'linux/arm64' }).waitFor();
});

void t.test('dashboard: nothing stands in the way of anyone, by day, by night and on a telephone', async (t) => {
  const program = await requireProgram(t, 'chromium');
  if (program === undefined) return;
  const { registry, page, pull, complaints } = await start(t, program);
  registry.blobBytesPerSecond = 300_000;
  await page.emulateMedia({ reducedMotion: 'reduce' });
  const pulled = await pull();
  await page.locator('#downloads > li').first().waitFor();
  await page.getByRole('button', { name: 'Look again' }).click();
  await page.locator('#image-rows summary').click();
  await page.locator('.inspection table').waitFor();
  for (const colorScheme of ['light', 'dark'] as const) {
    for (const width of [1280, 768, 360]) {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: 800 });
      await page.evaluate(axe);
      const { violations, passes } = await page.evaluate<{ violations: { id: string }[]; passes: { id: string }[] }>(
        'axe.run()',
      );
      const what = `${colorScheme}, ${width} pixels`;
      t.same(violations, [], what);
      t.ok(
        passes.some(({ id }) => id === 'color-contrast'),
        'contrast was looked at',
      );
      t.same(await page.evaluate(stickingOut), [], `${what}: nothing sticks out`);
    }
  }
  t.ok((await page.locator('#downloads > li').count()) > 0, 'a download was shown all the while');
  t.same(complaints, []);
  registry.blobBytesPerSecond = Infinity;
  await page.close();
  await Promise.all(pulled);
});

void t.test('dashboard: a server that is gone is said to be gone, and found again', async (t) => {
  const program = await requireProgram(t, 'chromium');
  if (program === undefined) return;
  const { mirror, page } = await start(t, program);
  await page.locator('#state.ready').waitFor();
  await page.context().setOffline(true);
  await page.locator('#state.unknown').waitFor();
  t.match(await textOf(page, '#connection'), /^The server cannot be reached; what stands here is of \d\d:\d\d:\d\d\.$/);
  await page.context().setOffline(false);
  await page.locator('#state.ready').waitFor();
  t.equal(await textOf(page, '#connection'), '');
  await mirror.stop();
  await page.locator('#state.unknown').waitFor();
});

void t.test('dashboard: it is painted by its markup and style, before any script came', async (t) => {
  const program = await requireProgram(t, 'chromium');
  if (program === undefined) return;
  const { mirror, page } = await start(t, program);
  const times: number[] = [];
  for (let loads = 0; loads < 5; loads += 1) {
    await page.reload();
    await until(async () => (await paintMs(page)) > 0, 'the first paint');
    times.push(await paintMs(page));
  }
  const ms = times.toSorted((one, other) => one - other)[2]!;
  t.comment(`first contentful paint after ${times.map(Math.round).join(', ')} ms`);
  if (process.env['NARROWS_TIMED'] === '1') t.ok(ms < 200, `${ms} ms`);

  // Scripts that never come hold nothing up.
  const other = await page.context().newPage();
  await other.route(/\.js$/, () => undefined);
  await other.goto(`${mirror.adminUrl}/`, { waitUntil: 'commit' });
  await until(async () => (await paintMs(other)) > 0, 'a paint without scripts');
  t.equal(await textOf(other, '#state-words'), 'asking');
  t.ok(await other.getByRole('heading', { name: 'Downloads' }).isVisible());
});

void t.test('dashboard: who may act is asked once more, and told how it went', async (t) => {
  const program = await requireProgram(t, 'chromium');
  if (program === undefined) return;
  const { registry, page, pull, complaints } = await start(t, program, { admin: { act: ['anonymous'] } });
  await Promise.all(await pull());
  const offline = page.getByRole('button', { name: 'Go offline …' });
  await offline.click();
  const dialog = page.getByRole('dialog', { name: 'Go offline?' });
  await dialog.getByRole('button', { name: 'Cancel' }).click();
  t.equal(await dialog.count(), 0);
  await offline.click();
  await dialog.getByRole('button', { name: 'Go offline' }).click();
  await page.locator('#state.offline').waitFor();
  await page.getByRole('button', { name: 'Go online …' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Go online' }).click();
  await page.locator('#state.ready').waitFor();

  await page.getByRole('button', { name: 'Look again' }).click();
  await page.locator('#image-rows summary').click();
  const actions = page.locator('.actions');
  await actions.getByRole('button', { name: 'Fetch …' }).click();
  t.equal(await actions.getByRole('status').textContent(), 'Choose for which platforms.');
  await actions.getByRole('checkbox', { name: 'linux/amd64' }).check();
  registry.forget();
  await actions.getByRole('button', { name: 'Fetch …' }).click();
  const question = page.getByRole('dialog', { name: 'Fetch and keep?' });
  t.match(await question.textContent(), /up\/team\/app:1 for linux\/amd64/);
  await question.getByRole('button', { name: 'Fetch' }).click();
  await actions.getByText('It is on its way.').waitFor();
  await until(() => registry.count('GET blobs', image.children[0]!.layers[0]!.digest) === 1, 'what was missing');
  t.same(complaints, []);
});

void t.test('dashboard: who may not act has no buttons, or is told why', async (t) => {
  const program = await requireProgram(t, 'chromium');
  if (program === undefined) return;
  const nobody = await start(t, program);
  await nobody.page.locator('#state.ready').waitFor();
  t.equal(await nobody.page.getByRole('button', { name: /offline/ }).count(), 0);
  const htpasswd = join(await temporaryFolder(t), 'users');
  await writeFile(htpasswd, `ops:${hashSync('o', 4)}\nalice:${hashSync('a', 4)}\n`);
  const mirror = await startTestMirror(t, {
    upstreams: { up: 'http://127.0.0.1:1' },
    config: { admin: { act: ['ops'] }, access: { mode: 'basic', htpasswd } },
  });
  const { page } = await open(t, program, mirror.adminUrl, { username: 'alice', password: 'a' });
  await page.getByRole('button', { name: 'Go offline …' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Go offline' }).click();
  await page.locator('#acted', { hasText: /\.$/ }).waitFor();
  t.match(await textOf(page, '#acted'), /admin\.act/);
  t.equal(await page.locator('#state.ready').count(), 1);
});

void t.test('dashboard: a name that is markup stays a name', async (t) => {
  const program = await requireProgram(t, 'chromium');
  if (program === undefined) return;
  const name = 'up/<img src=x onerror="document.title=1">&lt;b&gt;';
  const platform = `linux/${name}`;
  const nowMs = Date.now();
  const live: Live = {
    nowMs,
    startedAtMs: nowMs - 60_000,
    isOffline: false,
    mayAct: true,
    platforms: [{ platform, requests: 1, bytes: 5 }],
    sources: [{ cache: name, requests: 1, bytes: 5 }],
    sentBytes: 5,
    upstreamBytes: 5,
    sparedBytes: 5,
    upstreams: [{ name, requests: 1, troubles: 1, bytes: 5, remaining: 1, limit: 2, backoffS: 3 }],
    stores: [{ tier: name, bytes: 1, maxBytes: 2, isAvailable: false }],
    held: [{ platform, bytes: 5 }],
    downloads: { done: 1, failed: 0, abandoned: 0, joined: 0, resumed: 0, mismatched: 0 },
    staleAnswers: 0,
    loopDelayMs: 1,
    residentBytes: 1,
    running: [
      {
        digest: layer.digest,
        repository: name,
        platforms: [platform],
        startedAtMs: nowMs,
        receivedBytes: 1,
        freshBytes: 1,
        readers: 1,
        origin: 'miss',
      },
    ],
  };
  const missing = [{ digest: layer.digest, bytes: 1, kind: 'layer' }];
  const url = await startListener(t, {
    live: () => Promise.resolve({ ...live, nowMs: Date.now() }),
    images: () => Promise.resolve({ images: [{ image: name, digest: layer.digest }] }),
    inspect: () => Promise.resolve({ platforms: [{ platform, status: 'partial', bytes: 2, heldBytes: 1, missing }] }),
  });
  const { page, complaints } = await open(t, program, url);
  await page.locator('#image-rows summary').click();
  for (const place of ['#rates', '#downloads', '#upstreams', '#stores', '#held', '#image-rows', '.inspection th']) {
    await page.locator(place).filter({ hasText: name }).first().waitFor();
  }
  await page.getByRole('button', { name: 'Purge …' }).click();
  await page.getByRole('dialog').filter({ hasText: name }).waitFor();
  t.equal(await page.locator('img, b').count(), 0);
  t.equal(await page.title(), 'narrows');
  t.same(complaints, []);
});

const never = () => Promise.reject(new Error('Nobody asked for that.'));

/** An admin listener whose answers are a test's own. */
async function startListener(t: Test, api: AdminOptions['api']): Promise<string> {
  const admin = await startAdmin({
    host: '127.0.0.1',
    port: 0,
    hosts: [],
    isReady: () => true,
    isOffline: () => false,
    metrics: () => Promise.resolve({ text: '', contentType: 'text/plain' }),
    api,
    actions: { require: never, warm: never, unpin: never, purge: never, offline: never, log: never },
    onTrouble: (error) => t.fail(String(error)),
  });
  t.teardown(() => admin.stop());
  return `http://127.0.0.1:${admin.port}`;
}
