import t from 'tap';
import { catalogScope, covers, formatScope, parseScopes, repositoryScope } from '../../src/access/scopes.ts';

void t.test('parseScopes: as clients write them; what is none asks for nothing', (t) => {
  const cases: [parameters: string[], expected: string[]][] = [
    [[], []],
    [['repository:a/b:pull'], ['repository:a/b:pull']],
    [['repository:a:pull,push'], ['repository:a:pull,push']],
    [['repository:a:pull repository:b:pull'], ['repository:a:pull', 'repository:b:pull']],
    [
      ['repository:a:pull', 'registry:catalog:*'],
      ['repository:a:pull', 'registry:catalog:*'],
    ],
    [['repository(plugin):a:pull'], ['repository:a:pull']],
    [['repository:localhost:5000/a:pull'], ['repository:localhost:5000/a:pull']],
    [['repository:a:pull,pull,,push'], ['repository:a:pull,push']],
    [['', ' ', 'repository', 'repository:', 'repository:a', 'repository:a:', ':a:pull', 'repository::pull'], []],
    [['repository:a:PULL', 'REPOSITORY:a:pull', 'repository:a:pull;push', `repository:${'a'.repeat(400)}:pull`], []],
  ];
  for (const [parameters, expected] of cases) {
    t.same(parseScopes(parameters, 10).map(formatScope), expected, parameters.join(' | '));
  }
  const many = Array.from({ length: 1000 }, (_, at) => `repository:r${at}:pull`).join(' ');
  t.equal(parseScopes([many], 64).length, 64, 'so many and no more');
  t.end();
});

void t.test('covers: every action, of that very name and type', (t) => {
  const has = [repositoryScope('a', 'pull'), repositoryScope('a', 'push'), repositoryScope('b', '*')];
  t.ok(covers(has, repositoryScope('a', 'pull')));
  t.ok(covers(has, repositoryScope('a', 'pull', 'push')), 'of several scopes together');
  t.ok(covers(has, repositoryScope('b', 'delete')));
  t.notOk(covers(has, repositoryScope('a', 'delete')), 'pushing is not deleting');
  t.notOk(covers(has, repositoryScope('a', 'pull', 'delete')));
  t.notOk(covers(has, repositoryScope('a/b', 'pull')));
  t.notOk(covers(has, repositoryScope('A', 'pull')));
  t.notOk(covers(has, catalogScope));
  t.notOk(covers([], repositoryScope('a', 'pull')));
  t.notOk(covers([{ type: 'registry', name: 'a', actions: ['*'] }], repositoryScope('a', 'pull')));
  t.ok(covers([catalogScope], catalogScope));
  t.end();
});
