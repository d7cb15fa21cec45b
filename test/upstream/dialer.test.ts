import { BlockList } from 'node:net';
import type { Socket } from 'node:net';
import { hostname } from 'node:os';
import { lookup } from 'node:dns/promises';
import t from 'tap';
import { createDialer, isPublic } from '../../src/upstream/dialer.ts';
import { createReceiveBuffers } from '../../src/upstream/receiving.ts';
import type { ReceiveBuffers } from '../../src/upstream/receiving.ts';
import { makeCertificate, serve } from '../fixtures/servers.ts';
import type { Teardown } from '../fixtures/mirror.ts';

const addresses: Record<'public' | 'private', readonly string[]> = {
  public: [
    '168.63.129.15',
    '168.63.129.17',
    '1.1.1.1',
    '8.8.8.8',
    '9.255.255.255',
    '11.0.0.0',
    '100.63.255.255',
    '100.128.0.0',
    '126.255.255.255',
    '128.0.0.0',
    '169.253.255.255',
    '169.255.0.0',
    '172.15.255.255',
    '172.32.0.0',
    '192.0.1.0',
    '192.167.255.255',
    '192.169.0.0',
    '198.17.255.255',
    '198.20.0.0',
    '223.255.255.255',
    '::ffff:8.8.8.8',
    '::ffff:808:808',
    '2001:4860:4860::8888',
    '2606:4700::1111',
    '2a00:1450:4001:82a::200e',
    '2400:cb00:2048:1::c629:d7a2',
    '2606:4700::1111%eth0',
  ],
  private: [
    // IPv4, the first and last of each network.
    '0.0.0.0',
    '0.255.255.255',
    '10.0.0.0',
    '10.255.255.255',
    '100.64.0.0',
    '100.127.255.255',
    '127.0.0.1',
    '127.255.255.255',
    '169.254.0.0',
    '169.254.169.254',
    '169.254.255.255',
    '172.16.0.0',
    '172.31.255.255',
    '192.0.0.1',
    '192.0.0.192',
    '192.0.2.1',
    '192.88.99.1',
    '192.168.0.0',
    '192.168.255.255',
    '198.18.0.0',
    '198.19.255.255',
    '198.51.100.1',
    '203.0.113.1',
    '224.0.0.1',
    '239.255.255.255',
    '240.0.0.1',
    '255.255.255.255',
    // Azure's WireServer.
    '168.63.129.16',
    '::ffff:168.63.129.16',
    // IPv6.
    '::',
    '::1',
    '0:0:0:0:0:0:0:1',
    '0000:0000:0000:0000:0000:0000:0000:0001',
    'fc00::1',
    'fd00::1',
    'fd00:ec2::254',
    'FD00::1',
    'fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff',
    'fe80::1',
    'fe80::1%eth0',
    'febf::1',
    'fec0::1',
    'ff02::1',
    '100::1',
    '2001:db8::1',
    '2001::1',
    // IPv4 in IPv6 clothes: mapped, compatible, translated, NAT64, 6to4.
    '::ffff:127.0.0.1',
    '::ffff:7f00:1',
    '0:0:0:0:0:ffff:127.0.0.1',
    '::FFFF:10.0.0.1',
    '::ffff:169.254.169.254',
    '::ffff:0.0.0.0',
    '::127.0.0.1',
    '::7f00:1',
    '64:ff9b::10.0.0.1',
    '64:ff9b::7f00:1',
    '64:ff9b:1::1',
    '2002:7f00:1::',
    '2002:a00:1::1',
    // No address at all, or one that only a name look-up would understand.
    '',
    'localhost',
    'example.com',
    '127.1',
    '2130706433',
    '0x7f000001',
    '0x7f.0.0.1',
    '0177.0.0.1',
    '127.0.0.01',
    '1.2.3',
    '1.2.3.4.5',
    '8.8.8.8 ',
    '[::1]',
    '8.8.8.8:80',
  ],
};

void t.test('isPublic: addresses of the open internet, and nothing else', (t) => {
  for (const address of addresses.public) t.equal(isPublic(address), true, `${address} is public`);
  for (const address of addresses.private) t.equal(isPublic(address), false, `"${address}" is not`);
  t.end();
});

void t.test('6. isPublic: every special-purpose network of the IANA registry that is not globally reachable', (t) => {
  for (const [address, what] of [
    ['2001:2::1', 'benchmarking (RFC 5180)'],
    ['2001:10::1', 'ORCHID (RFC 4843)'],
    ['3fff::1', 'documentation (RFC 9637)'],
    ['5f00::1', 'segment routing identifiers (RFC 9602)'],
    ['100:0:0:1::1', 'the dummy prefix (RFC 9780)'],
  ] as const) {
    t.equal(isPublic(address), false, `${address}: ${what}`);
  }
  t.end();
});

void t.test('isPublic: outside 2000::/3 no IPv6 address is given out, however it embeds another', (t) => {
  const unicast = new BlockList();
  unicast.addSubnet('2000::', 3, 'ipv6');
  for (const address of ['::ffff:0:127.0.0.1', '::ffff:0:7f00:1', '1::1', '1fff::1', '4000::1', 'a000::1', 'fb00::1']) {
    t.equal(unicast.check(address, 'ipv6'), false, `${address} is outside`);
    t.equal(isPublic(address), false, `${address} is not public`);
  }
  t.end();
});

interface Target {
  hostname: string;
  port: number;
  protocol?: string;
}

/** Dials through a dialer that trusts what is given, and gives the error where it refuses. */
function dial(
  t: Teardown,
  { hostname, port, protocol = 'http:' }: Target,
  trusted: (host: string, port: number) => boolean,
  ca?: string,
): Promise<Socket | NodeJS.ErrnoException> {
  const connector = createDialer({ ca, connectTimeoutMs: 2000, isTrusted: trusted });
  return new Promise((resolve) => {
    const host = `${hostname}:${port}`;
    connector({ hostname, host, protocol, port: String(port) }, (error, socket) => {
      if (!socket) return resolve(error);
      t.teardown(() => socket.destroy());
      resolve(socket);
    });
  });
}

const nobody = () => false;

void t.test(
  '6. dialer: loopback, private and metadata addresses that nobody named are refused before a packet',
  async (t) => {
    const server = await serve(t, (_, response) => void response.end());
    for (const host of ['127.0.0.1', '127.0.0.2', '0.0.0.0', '[::1]', '[::ffff:127.0.0.1]', '::1']) {
      const outcome = await dial(t, { hostname: host, port: server.port }, nobody);
      t.match(outcome, { code: 'ENARROWS_ADDRESS' }, host);
    }
    for (const host of ['169.254.169.254', '10.0.0.1', '192.168.1.1', '[fd00:ec2::254]', '[fe80::1]']) {
      t.match(await dial(t, { hostname: host, port: 80 }, nobody), { code: 'ENARROWS_ADDRESS' }, host);
    }
    t.equal(server.connections, 0);
  },
);

void t.test('6. dialer: a name is judged by the address it resolves to in the connection itself', async (t) => {
  const server = await serve(t, (_, response) => void response.end());
  for (const host of ['localhost', 'LOCALHOST']) {
    const outcome = await dial(t, { hostname: host, port: server.port }, nobody);
    t.match(outcome, { code: 'ENARROWS_ADDRESS' }, host);
  }
  const own = await lookup(hostname()).catch(() => undefined);
  if (own && !isPublic(own.address)) {
    const outcome = await dial(t, { hostname: hostname(), port: server.port }, nobody);
    t.match(outcome, { code: 'ENARROWS_ADDRESS' }, "this machine's own name");
  }
  t.equal(server.connections, 0);
});

void t.test('dialer: the refusal says which host and what to do', async (t) => {
  const outcome = await dial(t, { hostname: 'localhost', port: 80 }, nobody);
  t.match((outcome as Error).message, /^localhost .*trustedHosts/);
});

void t.test('dialer: https is guarded as http is', async (t) => {
  const certificate = await makeCertificate('localhost', '127.0.0.1');
  const server = await serve(t, (_, response) => void response.end(), certificate);
  for (const host of ['127.0.0.1', 'localhost']) {
    const target = { hostname: host, port: server.port, protocol: 'https:' };
    t.match(await dial(t, target, nobody, certificate.cert), { code: 'ENARROWS_ADDRESS' }, host);
  }
  t.equal(server.connections, 0);
});

void t.test('dialer: what the operator named is dialled at whatever address, by name and by number', async (t) => {
  const server = await serve(t, (_, response) => void response.end());
  for (const host of ['127.0.0.1', 'localhost']) {
    const asked: [string, number][] = [];
    const outcome = await dial(t, { hostname: host, port: server.port }, (...of) => asked.push(of) > 0);
    t.equal((outcome as Socket).remotePort, server.port, host);
    t.same(asked, [[host, server.port]], 'asked for the host and port that are dialled');
  }
});

void t.test(
  'dialer: trust is asked without the brackets of IPv6, and with the port that the scheme implies',
  async (t) => {
    const asked: [string, number][] = [];
    const note = (host: string, port: number) => {
      asked.push([host, port]);
      return false;
    };
    const connector = createDialer({ ca: undefined, connectTimeoutMs: 1000, isTrusted: note });
    for (const protocol of ['http:', 'https:']) {
      await new Promise<void>((resolve) => {
        connector({ hostname: '[::1]', host: '[::1]', protocol, port: '' }, () => resolve());
      });
    }
    t.same(asked, [
      ['::1', 80],
      ['::1', 443],
    ]);
  },
);

void t.test('dialer: trust in one port is none in another', async (t) => {
  const named = await serve(t, (_, response) => void response.end());
  const neighbour = await serve(t, (_, response) => void response.end());
  const onlyNamed = (_: string, port: number) => port === named.port;
  t.match(await dial(t, { hostname: '127.0.0.1', port: named.port }, onlyNamed), { remotePort: named.port });
  t.match(await dial(t, { hostname: '127.0.0.1', port: neighbour.port }, onlyNamed), { code: 'ENARROWS_ADDRESS' });
  t.equal(neighbour.connections, 0);
});

void t.test("dialer: a certificate of the operator's authority is trusted, one of no authority is not", async (t) => {
  const certificate = await makeCertificate('localhost', '127.0.0.1');
  const server = await serve(t, (_, response) => void response.end(), certificate);
  const target = { hostname: '127.0.0.1', port: server.port, protocol: 'https:' };
  t.match(await dial(t, target, () => true, certificate.cert), { authorized: true, alpnProtocol: 'http/1.1' });
  t.match(await dial(t, target, () => true), { code: /SELF_SIGNED|UNABLE_TO_VERIFY/ });
});

void t.test(
  'dialer: what is in the clear is received into the given buffers, looked up or not; https is not',
  async (t) => {
    const certificate = await makeCertificate('localhost', '127.0.0.1');
    const secure = await serve(t, (_, response) => void response.end(), certificate);
    const plain = await serve(t, (_, response) => void response.end());
    let connections = 0;
    const receiveBuffers: ReceiveBuffers = {
      receiver() {
        connections++;
        return createReceiveBuffers(0).receiver();
      },
      recycle: () => undefined,
    };
    const dialing = (isTrusted: boolean, { port }: { port: number }, protocol: string) => {
      const dialer = createDialer({
        ca: certificate.cert,
        connectTimeoutMs: 2000,
        receiveBuffers,
        isTrusted: () => isTrusted,
      });
      return new Promise<void>((resolve) => {
        dialer({ hostname: 'localhost', host: `localhost:${port}`, protocol, port: String(port) }, (_, socket) => {
          socket?.destroy();
          resolve();
        });
      });
    };
    await dialing(true, secure, 'https:');
    t.equal(connections, 0);
    await dialing(true, plain, 'http:');
    t.equal(connections, 1);
    await dialing(false, plain, 'http:');
    t.equal(connections, 2);
  },
);
