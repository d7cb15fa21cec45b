/** npm run bench [-- --clients 1000 --only narrows --json]: figures of this machine, beside those of what else is installed. */
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { table } from '../demo/show.ts';
import { benchHerd } from './herd.ts';

const { values } = parseArgs({
  options: {
    clients: { type: 'string', default: '1000' },
    only: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});
const say = (text: string) => void (values.json || process.stdout.write(text));

say(`${cpus().length} × ${cpus()[0]?.model}, Node ${process.versions.node}\n\n`);
const figures = await benchHerd(Number(values.clients), values.only, (text) => say(`${text}\n`));
if (values.json) process.stdout.write(`${JSON.stringify({ herd: figures }, undefined, 2)}\n`);
const rows = figures.map((one) => [
  one.server,
  `${one.right}/${one.clients}`,
  String(one.upstreamGets),
  String(one.upstreamHeads),
  `${one.lastHeadMs.toFixed(0)} ms`,
  `${one.lastFirstByteMs.toFixed(0)} ms`,
  `${one.seconds.toFixed(1)} s`,
  `+${one.rssGrowthMiB.toFixed(0)} MiB`,
  `${one.cpuSeconds.toFixed(1)} s`,
]);
const head = [
  'server',
  'right',
  'upstream GET',
  'HEAD',
  'last head',
  'last first byte',
  'all done',
  'peak memory',
  'processor',
];
say(`\n${table([head, ...rows])}`);
