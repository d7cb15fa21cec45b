import t from 'tap';
import { proxyFor } from '../../src/cli/proxies.ts';

const proxy = 'http://proxy.example:3128';

void t.test('the scheme of the URL decides which variable counts', (t) => {
  const env = { HTTPS_PROXY: 'http://secure.example:1', HTTP_PROXY: 'http://plain.example:2' };
  t.equal(proxyFor(new URL('https://ghcr.io'), env), 'http://secure.example:1');
  t.equal(proxyFor(new URL('http://registry.lan'), env), 'http://plain.example:2');
  t.equal(proxyFor(new URL('https://ghcr.io'), { HTTP_PROXY: proxy }), undefined);
  t.equal(proxyFor(new URL('https://ghcr.io'), {}), undefined);
  t.equal(proxyFor(new URL('https://ghcr.io'), { HTTPS_PROXY: '' }), undefined, 'empty is none');
  t.equal(proxyFor(new URL('https://ghcr.io'), { HTTPS_PROXY: 'http://a', https_proxy: 'http://b' }), 'http://b');
  t.equal(proxyFor(new URL('https://ghcr.io'), { HTTPS_PROXY: 'proxy.example:3128' }), proxy);
  t.equal(proxyFor(new URL('https://ghcr.io'), { HTTPS_PROXY: 'socks5://p:1' }), 'socks5://p:1', 'refused later');
  t.end();
});

void t.test('70. NO_PROXY: names, their subdomains, addresses, networks, ports', (t) => {
  const cases: [noProxy: string, url: string, isDirect: boolean][] = [
    ['', 'https://ghcr.io', false],
    ['*', 'https://ghcr.io', true],
    ['ghcr.io', 'https://ghcr.io', true],
    ['GHCR.io', 'https://ghcr.io', true],
    [' a.example , ghcr.io ', 'https://ghcr.io', true],
    ['ghcr.io', 'https://pkg.ghcr.io', true],
    ['ghcr.io', 'https://notghcr.io', false],
    ['ghcr.io', 'https://ghcr.io.evil.example', false],
    ['.ghcr.io', 'https://pkg.ghcr.io', true],
    ['*.ghcr.io', 'https://pkg.ghcr.io', true],
    ['.ghcr.io', 'https://ghcr.io', false],
    ['ghcr.io:443', 'https://ghcr.io', true],
    ['ghcr.io:8443', 'https://ghcr.io', false],
    ['ghcr.io:8443', 'https://ghcr.io:8443', true],
    ['10.0.0.0/8', 'https://10.1.2.3', true],
    ['10.0.0.0/8', 'https://11.1.2.3', false],
    ['10.0.0.0/8', 'https://ten.example', false],
    ['10.1.2.3', 'https://10.1.2.3:5000', true],
    ['2.3', 'https://10.1.2.3', false],
    ['fd00::/8', 'https://[fd12::1]', true],
    ['fd00::/8', 'https://[fe80::1]', false],
    ['[fd12::1]', 'https://[fd12::1]', true],
    ['10.0.0.0/33', 'https://10.1.2.3', false],
    [',,', 'https://ghcr.io', false],
    ['', 'http://localhost:5000', true],
    ['', 'https://127.8.8.8', true],
    ['', 'https://[::1]:5000', true],
    ['', 'https://localhost.example', false],
  ];
  for (const [noProxy, url, isDirect] of cases) {
    const env = { HTTPS_PROXY: proxy, HTTP_PROXY: proxy, NO_PROXY: noProxy };
    t.equal(proxyFor(new URL(url), env), isDirect ? undefined : proxy, `${noProxy || 'none'}: ${url}`);
  }
  t.end();
});
