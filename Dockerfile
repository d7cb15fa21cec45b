# narrows runs from its source: what is tested is what runs.
FROM node:26-slim AS dependencies
WORKDIR /narrows
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --ignore-scripts
# --build-arg WITH=@aws-sdk/client-s3 for a store that speaks S3.
ARG WITH=""
RUN [ -z "$WITH" ] || npm install --no-save --ignore-scripts $WITH

FROM node:26-slim
WORKDIR /narrows
COPY --from=dependencies /narrows/node_modules node_modules
COPY package.json ./
COPY config config
COPY src src
# The store is the one place that is written to; the rest may be read-only.
RUN mkdir /data && chown node:node /data
USER node
VOLUME /data
ENV NARROWS_CONFIG=/narrows/config/container.example.yaml
EXPOSE 5000 5001
HEALTHCHECK --interval=10s --timeout=3s CMD ["node", "-e", "fetch('http://127.0.0.1:5001/healthz').then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["node", "src/main.ts"]
CMD ["serve"]
