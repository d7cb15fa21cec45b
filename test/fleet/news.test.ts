import t from 'tap';
import { createNews } from '../../src/fleet/news.ts';
import { until } from '../fixtures/downloads.ts';
import { within } from '../fixtures/servers.ts';

void t.test('news: one word reaches everyone who waits for that name, and nobody else', async (t) => {
  const news = createNews(400);
  const heard: string[] = [];
  const waiting = ['a', 'a', 'b'].map((name) => news.next(name).then(() => heard.push(name)));
  news.told('a');
  await Promise.all(waiting.slice(0, 2));
  t.same(heard, ['a', 'a']);
  news.told('b');
  await waiting[2];
  t.same(heard, ['a', 'a', 'b']);
});

void t.test('news: a word counts for those who waited before it, and once', async (t) => {
  const news = createNews(300);
  news.told('a');
  const started = performance.now();
  await news.next('a');
  t.ok(performance.now() - started >= 290, 'what was said before is not heard');
});

void t.test('news: without any word, patience ends the wait', async (t) => {
  const news = createNews(50);
  const started = performance.now();
  await within(5000, 'the wait', news.next('a'));
  t.ok(performance.now() - started >= 45);
});

void t.test('news: who waits again from within a word hears the next one, not the same', async (t) => {
  const news = createNews(60_000);
  let heard = 0;
  const follow = async (): Promise<void> => {
    while (heard < 3) {
      await news.next('a');
      heard++;
    }
  };
  const following = follow();
  for (let word = 1; word <= 3; word++) {
    news.told('a');
    await until(() => heard === word, `word ${word}`);
  }
  await following;
  t.equal(heard, 3);
});
