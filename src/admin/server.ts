import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface AdminOptions {
  readonly host: string;
  readonly port: number;
  /** May new work be sent here? */
  isReady(): boolean;
  metrics(): Promise<{ text: string; contentType: string }>;
}

export interface Admin {
  readonly port: number;
  stop(): Promise<void>;
}

/** The listener for operators and probes, apart from the clients'. */
export async function startAdmin(options: AdminOptions): Promise<Admin> {
  const server = createServer((request, response) => {
    const answer = (status: number, text: string, contentType = 'text/plain; charset=utf-8') => {
      response.writeHead(status, { 'content-type': contentType, 'cache-control': 'no-store' });
      response.end(text);
    };
    if (request.method !== 'GET' && request.method !== 'HEAD') return answer(405, 'This address is read from.\n');
    switch (request.url) {
      case '/healthz':
        return answer(200, 'ok\n');
      case '/readyz':
        return options.isReady() ? answer(200, 'ready\n') : answer(503, 'stopping\n');
      case '/metrics':
        options.metrics().then(
          ({ text, contentType }) => answer(200, text, contentType),
          () => answer(500, 'The metrics could not be read.\n'),
        );
        return;
      default:
        return answer(404, 'There is: /healthz /readyz /metrics\n');
    }
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port, options.host, resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
