import t from 'tap';
import { platformLabel, servedLabel } from '../../src/metrics/labels.ts';

void t.test('labels: platforms that there are, and few words for all others', (t) => {
  const expected: [said: string | undefined, label: string][] = [
    [undefined, 'none'],
    ['linux/arm64; via=path', 'linux/arm64'],
    ['linux/arm/v7; via=address', 'linux/arm/v7'],
    ['windows(10.0.20348.1)/amd64; via=path', 'windows/amd64'],
    ['any; via=path', 'any'],
    ['linux/amd64,linux/arm64; via=path', 'several'],
    ['linux/made-up; via=header', 'other'],
    ['linux/arm/v77; via=header', 'other'],
    ['', 'other'],
  ];
  for (const [said, label] of expected) t.equal(platformLabel(said), label, String(said));
  t.end();
});

void t.test('labels: content is for one platform, for several, or nobody knows', (t) => {
  t.equal(servedLabel([]), 'unknown');
  t.equal(servedLabel(['linux/arm64']), 'linux/arm64');
  t.equal(servedLabel(['linux/arm64', 'linux/amd64']), 'several');
  t.equal(servedLabel(['plan9/x']), 'other');
  t.end();
});
