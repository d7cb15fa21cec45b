import { readFileSync, readdirSync } from 'node:fs';
import * as fc from 'fast-check';
import t from 'tap';
import { stringify } from 'yaml';
import { findImages } from '../../src/airgap/find-images.ts';
import type { Found } from '../../src/airgap/find-images.ts';

const folder = new URL('../fixtures/yaml/', import.meta.url);
const digest = `sha256:${'0123456789abcdef'.repeat(4)}`;

interface Shown {
  readonly images: Record<string, string[]>;
  readonly unusable: string[];
}

/** `12 Deployment/web, container api` for a place; line, place, text and reason of what is unusable. */
function show({ images, unusable }: Found): Shown {
  return {
    images: Object.fromEntries(
      images.map(({ image, places }) => [image, places.map(({ line, what }) => `${line} ${what}`.trim())]),
    ),
    unusable: unusable.map(({ line, what, text, reason }) => [line, what, text, reason].join(' | ')),
  };
}

const imagesIn = (text: string) => findImages(text).images.map(({ image }) => image);
const reasonsIn = (text: string) => findImages(text).unusable.map(({ reason }) => reason);

const imagesOfService = (text: string) => imagesIn(`services: {a: {image: '${text}'}}`);

const levels = (first: string, item: (name: string) => string) =>
  Array.from({ length: 40 }, (_, n) => `a${n}: &a${n} ${n === 0 ? first : item(`*a${n - 1}`)}`).join('\n');

const nested = (depth: number) => `${'['.repeat(depth)}"a:1"${']'.repeat(depth)}`;

const holds = (text: string) => {
  try {
    const { images, unusable } = findImages(text);
    const lines = text.split('\n').length;
    return [...images.flatMap(({ places }) => places), ...unusable].every(({ line }) => line >= 1 && line <= lines);
  } catch (error) {
    return error instanceof SyntaxError && /^line [1-9]\d*: /.test(error.message);
  }
};

const expected: Record<string, Shown> = {
  'argo-cd.yaml': {
    images: {
      'quay.io/argoproj/argocd:v3.1.0': [
        '10 StatefulSet/argocd-application-controller, container application-controller',
        '21 Deployment/argocd-repo-server, init container copyutil',
        '24 Deployment/argocd-repo-server, container repo-server',
      ],
      'public.ecr.aws/docker/library/redis:7.2.8-alpine': ['26 Deployment/argocd-repo-server, container redis'],
      python: ['40 Workflow/build-, spec.templates[script].script.image'],
      'ghcr.io/example/shop:2.0': ['53 Application/shop, spec.source.kustomize.images'],
    },
    unusable: [
      '36 | Workflow/build-, spec.templates[main].container.image | {{workflow.parameters.image}} | a template that has not been rendered',
    ],
  },
  'cert-manager.yaml': {
    images: {
      'quay.io/jetstack/cert-manager-controller:v1.18.2': [
        '10 Deployment/cert-manager, container cert-manager-controller',
      ],
      'quay.io/jetstack/cert-manager-acmesolver:v1.18.2': [
        '14 Deployment/cert-manager, container cert-manager-controller, args',
      ],
      'quay.io/jetstack/cert-manager-webhook:v1.18.2': [
        '27 Deployment/cert-manager-webhook, container cert-manager-webhook',
      ],
    },
    unusable: [],
  },
  'cilium-values.yaml': {
    images: {
      [`quay.io/cilium/cilium:v1.18.0@${digest}`]: ['3 image'],
      'quay.io/cilium/cilium-envoy:v1.34.4': ['10 envoy.image'],
      'quay.io/cilium/hubble-ui:v0.13.2': ['16 hubble.ui.frontend.image'],
    },
    unusable: [],
  },
  'cloudnative-pg.yaml': {
    images: {
      'ghcr.io/cloudnative-pg/postgresql:17.5': [
        '6 Cluster/shop, spec.imageName',
        '18 ImageCatalog/postgresql, spec.images.image',
      ],
      'ghcr.io/cloudnative-pg/postgresql:16.9': ['20 ImageCatalog/postgresql, spec.images.image'],
      'ghcr.io/zalando/spilo-17:4.0-p2': ['27 postgresql/legacy, spec.dockerImage'],
    },
    unusable: [],
  },
  'clusterserviceversion.yaml': {
    images: {
      'quay.io/example/cache-operator:v1.4.0': [
        '6 ClusterServiceVersion/cache-operator.v1.4.0, metadata.annotations.containerImage',
        '19 ClusterServiceVersion/cache-operator.v1.4.0, container manager',
      ],
      [`quay.io/example/cache@${digest}`]: [
        '22 ClusterServiceVersion/cache-operator.v1.4.0, container manager, env[RELATED_IMAGE_CACHE]',
        '29 ClusterServiceVersion/cache-operator.v1.4.0, spec.relatedImages[cache].image',
      ],
      'quay.io/example/proxy:v2': [
        '24 ClusterServiceVersion/cache-operator.v1.4.0, container manager, env[RELATED_IMAGE_PROXY]',
        '31 ClusterServiceVersion/cache-operator.v1.4.0, spec.relatedImages[proxy].image',
      ],
    },
    unusable: [],
  },
  'compose.yaml': {
    images: {
      'ghcr.io/example/app:1.2': ['2 service web'],
      'ghcr.io/example/worker:1.2': [
        '5 service web, environment.WORKER_IMAGE',
        '5 service api, environment.WORKER_IMAGE',
      ],
      'redis:7-alpine': ['12 service api', '12 service cache'],
      postgres: ['18 service db'],
      'busybox:1.37': ['20 service db, environment'],
      'ghcr.io/example/seed:1': ['23 service db, volumes.source'],
      'example/app:1': ['33 service empty'],
    },
    unusable: [
      '25 | service late | example/late:${LATE} | a variable without a value',
      '27 | service later | example/later:$LATER | a variable without a value',
      '29 | service must | example/must:${MUST:?set it} | a variable without a value',
      '31 | service dollar | example/$${TAG} | no image name',
    ],
  },
  'ingress-nginx.yaml': {
    images: {
      'registry.example.com/nginx-modules:2.1': ['27 Deployment/ingress-nginx-controller, init container modules'],
      [`registry.k8s.io/ingress-nginx/controller:v1.13.0@${digest}`]: [
        '30 Deployment/ingress-nginx-controller, container controller',
      ],
      'registry.k8s.io/ingress-nginx/kube-webhook-certgen:v1.6.0': [
        '51 Job/ingress-nginx-admission-, container create',
        '64 CronJob/rotate, container rotate',
      ],
      pause: ['65 CronJob/rotate, container wait'],
    },
    unusable: [],
  },
  'istio.yaml': {
    images: {
      'docker.io/istio/pilot:1.27.0': ['17 Deployment/istiod, container discovery'],
      'docker.io/istio/proxyv2:1.27.0': ['20 Deployment/istiod, container discovery, env[PILOT_DEFAULT_IMAGE]'],
    },
    unusable: ['33 | Deployment/gateway, container istio-proxy | auto | a place that the injector of Istio fills'],
  },
  'k3s-images.txt': {
    images: {
      'docker.io/rancher/klipper-helm:v0.9.8-build20250709': ['1'],
      'docker.io/rancher/mirrored-pause:3.6': ['2'],
      busybox: ['5'],
    },
    unusable: [
      '7 |  | Rancher/Upper:1 | no image name',
      '8 |  | app:${TAG} | a variable without a value',
      '9 |  | {{.Values.image}} | a template that has not been rendered',
    ],
  },
  'kube-prometheus-stack.yaml': {
    images: {
      'quay.io/prometheus-operator/prometheus-operator:v0.84.0': [
        '10 Deployment/prometheus-operator, container operator',
      ],
      'quay.io/prometheus-operator/prometheus-config-reloader:v0.84.0': [
        '13 Deployment/prometheus-operator, container operator, args',
      ],
      'quay.io/thanos/thanos:v0.39.0': [
        '14 Deployment/prometheus-operator, container operator, args',
        '16 Deployment/prometheus-operator, container operator, args',
        '26 Prometheus/k8s, spec.thanos.image',
      ],
      'quay.io/prometheus/prometheus:v3.5.0': ['23 Prometheus/k8s, spec.image'],
      'quay.io/oauth2-proxy/oauth2-proxy:v7.9.0': ['29 Prometheus/k8s, container proxy'],
      'registry.example.com/rules:2025': ['33 Prometheus/k8s, volume rules'],
      'quay.io/prometheus/alertmanager:v0.28.1': ['41 Alertmanager/main, spec'],
      'quay.io/prometheus/sidecar:v1': ['43 Alertmanager/main, spec.sidecarImage'],
    },
    unusable: [],
  },
  'kustomization.yaml': {
    images: {
      'ghcr.io/example/web:1.10': ['7 Kustomization, images'],
      'nginx:1.29': ['9 Kustomization, images'],
      [`ghcr.io/example/api@${digest}`]: ['12 Kustomization, images'],
    },
    unusable: ['15 | Kustomization, images | ghcr.io/example/moved | its tag stands in the manifests'],
  },
  'longhorn-images.txt': {
    images: {
      'longhornio/csi-attacher:v4.9.0-20250709': ['2'],
      'longhornio/longhorn-engine:v1.9.1': ['3', '6'],
      'longhornio/longhorn-ui:v1.9.1': ['5'],
    },
    unusable: [],
  },
  'pods.json': {
    images: {
      'nginx:1.29': ['13 Pod/web-0, container web'],
      busybox: ['14 Pod/web-0, ephemeral container debug'],
    },
    unusable: [],
  },
  'values.yaml': {
    images: {
      'registry.k8s.io/ingress-nginx/controller:v1.13.0': ['11 controller.image'],
      'docker.io/bitnami/nginx': ['14 web.image'],
      'busybox:1.20': ['15 web.sidecar'],
      [`quay.io/prometheus-operator/prometheus-config-reloader:v0.84.0@${digest}`]: ['19 reloader.image'],
      'longhornio/longhorn-engine:v1.9.1': ['24 longhorn.image.engine'],
      'quay.io/kiwigrid/k8s-sidecar:1.30.7': ['25 kiwi'],
      'docker.io/busybox': ['25 kiwi.initImage'],
      redis: ['29 bare.image'],
    },
    unusable: [
      '28 | app.image | ghcr.io/example/app:{{ .Chart.AppVersion }} | a template that has not been rendered',
      '32 | broken.image | Not An Image | no image name',
      '33 | near.image | localhost:5000/app:1 | a registry with a port',
    ],
  },
};

void t.test('findImages: what charts, manifests and lists name, and where', (t) => {
  t.same(readdirSync(folder).toSorted(), Object.keys(expected).toSorted(), 'every fixture is told about');
  for (const [file, found] of Object.entries(expected)) {
    const seen = show(findImages(readFileSync(new URL(file, folder), 'utf8')));
    t.same(seen, found, file);
    t.same(Object.keys(seen.images), Object.keys(found.images), `${file}, in order`);
  }
  t.end();
});

void t.test('findImages: a list is words, one a line', (t) => {
  t.same(findImages(''), { images: [], unusable: [] });
  t.same(findImages('# nothing\n\n \t\r\n'), { images: [], unusable: [] });
  t.same(imagesIn('nginx'), ['nginx']);
  t.same(imagesIn('nginx:1 # the web\n#redis:1\n\tredis:2\t#no'), ['nginx:1', 'redis:2']);
  t.same(imagesIn('docker://a/b:1\noci://a/c:1\nhttps://ghcr.io/a/d:1'), ['a/b:1', 'a/c:1', 'ghcr.io/a/d:1']);
  t.same(imagesIn(`a@${digest}\na:1@${digest}`), [`a@${digest}`, `a:1@${digest}`], 'both texts, though one image');
  t.same(reasonsIn('a:1\nb#c\nlocalhost:5000/a:1\na@sha256:12'), [
    'no image name',
    'a registry with a port',
    'no image name',
  ]);
  t.equal(findImages('x'.repeat(10_000)).unusable[0]?.text.length, 160, 'what is shown of it is short');
  t.end();
});

void t.test('findImages: lists in YAML and JSON', (t) => {
  t.same(show(findImages('- nginx\n- redis:7\n')).images, { nginx: ['1 image list'], 'redis:7': ['2 image list'] });
  t.same(imagesIn('["nginx", "a b", "redis:7"]'), ['nginx', 'redis:7']);
  t.same(show(findImages('images:\n  - nginx\n')).images, { nginx: ['2 images'] });
  t.same(imagesIn('mirror: {additionalImages: [{name: "quay.io/a/b:1"}, {name: words}]}'), ['quay.io/a/b:1']);
  t.same(imagesIn('{"kind":"Pod","apiVersion":"v1","spec":{"containers":[{"image":"a"}]}}'), ['a'], 'without a space');
  t.same(imagesIn('---\n---\n# nothing\n---\nimage: a/b\n...\n'), ['a/b'], 'documents may be empty');
  t.end();
});

void t.test('findImages: what only resembles an image is silently none', (t) => {
  const none = [
    'imagePullPolicy: a/b:1',
    'imagePullSecrets: [a]',
    'imageID: docker.io/a/b@sha256:12',
    'image: ~',
    'image: ""',
    'image: 1.5',
    'image: scratch',
    'image: proxyv2',
    'image: assets/logo.png',
    'baseImage: ubuntu',
    'baseImage: Not an image',
    'hosts: ["example.com:8080", "https://example.com/a:1", "a/b:1", "example.com/path"]',
    'args: ["--x={{ a }}", "--y=${Z}", "--address=example.com:80"]',
    'env: [{name: NO_IMAGE, value: "none"}, {name: OTHER, value: "quay.io/a/b:1"}]',
    'status: {containers: [{image: "a:1"}]}',
    'apiVersion: v1\nkind: Secret\nstringData: {image: "a/b:1"}',
    `notes: ${'x'.repeat(5000)}`,
  ];
  for (const text of none) t.same(findImages(text), { images: [], unusable: [] }, text.slice(0, 80));
  t.same(imagesIn('spec: {status: {image: "a:1"}}'), ['a:1'], 'a status is that of an object');
  t.end();
});

void t.test('findImages: parts are put together', (t) => {
  const cases: Record<string, string> = {
    '{repository: a/b}': 'a/b',
    '{repository: a/b, tag: }': 'a/b',
    '{repository: a/b, tag: 1.10}': 'a/b:1.10',
    '{repository: a/b, tag: 20250101}': 'a/b:20250101',
    '{repository: "a/b:2", tag: 1}': 'a/b:2',
    '{registry: ghcr.io, repository: a/b, tag: v1}': 'ghcr.io/a/b:v1',
    '{registry: ghcr.io/, image: a/b, tag: v1}': 'ghcr.io/a/b:v1',
    '{hub: ghcr.io/a, name: b, tag: v1}': 'ghcr.io/a/b:v1',
    [`{repository: a/b, digest: "${digest}"}`]: `a/b@${digest}`,
    [`{repository: a/b, tag: v1, digest: "${digest}"}`]: `a/b:v1@${digest}`,
    [`{repository: a/b, tag: "v1@${digest}"}`]: `a/b:v1@${digest}`,
    '{reference: a/b}': 'a/b',
  };
  for (const [parts, image] of Object.entries(cases)) t.same(imagesIn(`image: ${parts}`), [image], parts);
  t.same(imagesIn('a: {baseImage: quay.io/a/b, tag: v1}'), ['quay.io/a/b:v1']);
  t.same(imagesIn('a: {repository: a/b, tag: v1, initImage: "c:1"}'), ['a/b:v1', 'c:1'], 'and what stands beside');
  t.same(reasonsIn('image: {repository: A/B}'), ['no image name']);
  t.end();
});

void t.test('findImages: templates and variables', (t) => {
  t.same(show(findImages('a: 1\nimage: {{ .Values.image }}\n')).unusable, [
    '2 | image | {{ .Values.image }} | a template that has not been rendered',
  ]);
  t.same(reasonsIn('sidecarImage: "a:{{ x }}"'), ['a template that has not been rendered']);
  t.same(imagesOfService('a:${B:-1}'), ['a:1']);
  t.same(imagesOfService('a:${B-1}'), ['a:1']);
  t.same(imagesOfService('${A:=b}:1'), ['b:1']);
  t.same(imagesOfService('${A:-${B:-${C-d}}}:1'), ['d:1']);
  t.same(imagesOfService('a${B:+c}'), ['a']);
  for (const text of ['a:$B', 'a:${B}', 'a:${B:?}', 'a:${B:-${C}}', 'a:$(B)']) {
    t.same(reasonsIn(`services: {a: {image: '${text}'}}`), ['a variable without a value'], text);
  }
  t.end();
});

void t.test('findImages: aliases and merge keys', (t) => {
  t.same(show(findImages('x: &x a/b:1\nimage: *x\n')).images, { 'a/b:1': ['1 image'] });
  t.same(imagesIn('a: &a {image: "a:1"}\nb: {<<: *a, image: "b:1"}\n'), ['a:1', 'b:1']);
  t.same(imagesIn('x-a: &a {image: "a:1"}\nservices: {b: {image: "b:1", <<: *a}, c: {image: ~, <<: *a}}\n'), ['b:1']);
  t.same(imagesIn('a: &a x:1\nb: &a y:1\nimage: *a\n'), ['y:1'], 'the last anchor of a name counts');
  t.throws(() => findImages('a: 1\nb: *c\n'), /^line 2: /);
  t.throws(() => findImages('a: &a\n  b: *a\n'), new SyntaxError('line 2: *a contains itself'));
  t.throws(() => findImages('a: &a 1\n---\nb: *a\n'), SyntaxError, 'anchors end with their document');
  t.end();
});

void t.test('72. findImages: texts that would grow without bound are refused', (t) => {
  t.throws(() => findImages(levels('[x]', (name) => `[${name}, ${name}, ${name}]`)), /aliases repeat too much/);
  t.throws(() => findImages(levels('{i: x}', (name) => `{b: ${name}, c: ${name}}`)), /aliases repeat too much/);
  const chain = Array.from({ length: 700 }, (_, n) => `a${n}: &a${n} {k${n}: 1${n > 0 ? `, <<: *a${n - 1}` : ''}}`);
  t.throws(() => findImages(chain.join('\n')), /merge keys make more than/);
  t.same(imagesIn(nested(150)), ['a:1']);
  t.throws(() => findImages(nested(300)), /^line 1: nested deeper than 200/);
  t.throws(() => findImages(nested(50_000)), SyntaxError);
  const tower = Array.from({ length: 300 }, (_, n) => `a${n}: &a${n} [${n > 0 ? `*a${n - 1}` : 'x'}]`);
  t.throws(() => findImages(tower.join('\n')), /nested deeper than 200/, 'nor by aliases');
  t.end();
});

void t.test('findImages: neither a list nor YAML', (t) => {
  const cases: Record<string, RegExp> = {
    'nginx:1.27\nredis:7 linux/amd64\n': /^line 2: neither one image alone/,
    'just some words': /^line 1: neither/,
    'a: 1\n---\nwords of prose\n': /^line 3: neither/,
    '"nginx"': /^line 1: neither/,
    'a: 1\nb: [1\n': /^line \d: no YAML: /,
    'a: b: c\n': /^line 1: no YAML: /,
    '{"image": "a:1",': /^line 1: no YAML: /,
    'a: 1\n{{- if .Values.a }}\nb: 2\n{{- end }}\n': /^line \d: .*Helm template.*helm template/,
    'image: {{ .Values.a }}:{{ .Values.b }}\n': /^line 1: .*Helm template/,
    '{{ include "a" . }}\n': /^line 1: .*Helm template/,
  };
  for (const [text, message] of Object.entries(cases)) {
    t.throws(() => findImages(text), { name: 'SyntaxError', message }, JSON.stringify(text));
  }
  t.end();
});

void t.test('findImages: of any text, an answer or a SyntaxError', (t) => {
  const words = [
    'image',
    'images',
    ': ',
    '- ',
    '\n',
    '  ',
    '&a ',
    '*a',
    '<<',
    '{',
    '}',
    '[',
    ']',
    '{{',
    '${A',
    '|',
    '"',
  ];
  const yamlLike = fc.array(
    fc.oneof(fc.constantFrom(...words, 'a:1', '---\n', '#', '!', '? ', "'", '%', '\r\n', '\t')),
  );
  const texts = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.lorem(),
    yamlLike.map((parts) => parts.join('')),
  );
  fc.assert(fc.property(texts, holds), { numRuns: 2000 });
  t.end();
});

void t.test('findImages: a container is found wherever it hangs, and nothing else about it matters', (t) => {
  const others = fc.dictionary(fc.stringMatching(/^[a-z]{1,6}$/), fc.jsonValue({ maxDepth: 2 }), { maxKeys: 4 });
  const paths = fc.array(fc.stringMatching(/^[a-z]{1,6}$/), { maxLength: 8 });
  fc.assert(
    fc.property(paths, others, fc.boolean(), (path, beside, asJson) => {
      const pod = { ...beside, containers: [{ name: 'a', image: 'ghcr.io/found/it:1' }] };
      const tree = { top: path.reduceRight<object>((inner, key) => ({ [key]: inner }), pod) };
      const text = asJson ? JSON.stringify(tree) : stringify(tree);
      return imagesIn(text).includes('ghcr.io/found/it:1');
    }),
  );
  t.end();
});
