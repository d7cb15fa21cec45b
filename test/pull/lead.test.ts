import t from 'tap';
import { createLead } from '../../src/pull/lead.ts';

const MiB = 1024 * 1024;

/** A download of which so much more is used with each change. */
function stage(received: number, used: number, step = 0) {
  const state = { received, used, changes: 0 };
  const lead = createLead({
    received: () => state.received,
    used: () => state.used,
    changed() {
      state.changes++;
      state.used += step;
      return step > 0 ? Promise.resolve() : new Promise(() => undefined);
    },
  });
  return { state, lead };
}

void t.test('lead: a short one is not waited for', async (t) => {
  const { state, lead } = stage(10 * MiB, 6 * MiB);
  await lead.letCatchUp();
  t.equal(state.changes, 0);
  state.used = Infinity;
  await lead.letCatchUp();
  t.equal(state.changes, 0, 'nor where nobody needs anything');
});

void t.test('lead: a long one is waited for until it is short, and not for longer', async (t) => {
  const { state, lead } = stage(10 * MiB, 3 * MiB, MiB);
  await lead.letCatchUp();
  t.equal(state.changes, 3);
});

void t.test('lead: whoever uses nothing is waited for for a moment', async (t) => {
  const { state, lead } = stage(10 * MiB, 0);
  await lead.letCatchUp();
  t.equal(state.changes, 1);
});

void t.test('lead: small pieces together wait as long as one large piece', async (t) => {
  const { state, lead } = stage(10 * MiB, 0);
  await lead.letCatchUp();
  for (let pieces = 0; pieces < 63; pieces++) {
    state.received += MiB / 64;
    await lead.letCatchUp();
  }
  t.equal(state.changes, 1);
  state.received += MiB / 64;
  await lead.letCatchUp();
  t.equal(state.changes, 2);
});
