# Worker image for Beam runners that start containers (Dataflow, Flink, Spark). Not built where it was written; see docs/runners.md.
FROM apache/beam_python3.11_sdk:2.77.0 AS beam

FROM python:3.11-slim
COPY --from=beam /opt/apache/beam /opt/apache/beam
WORKDIR /gristmill
COPY pyproject.toml requirements.lock README.md LICENSE NOTICE ./
COPY schemas schemas
COPY pipelines pipelines
COPY trainer trainer
# Torch is for the trainer: workers of the pipelines do without it.
RUN grep -vE '^torch==' requirements.lock > /tmp/lock.txt \
    && pip install --no-cache-dir --no-deps . \
    && pip install --no-cache-dir --constraint /tmp/lock.txt apache-beam backports.zstd boto3 brotli ftfy \
       google-cloud-dataflow-client google-cloud-storage numba numpy orjson phonenumbers pillow py3langid pyarrow pydantic \
       pyyaml resiliparse rjieba sentencepiece tokenizers xxhash
ENTRYPOINT ["/opt/apache/beam/boot"]
