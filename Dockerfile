# The image of the workers: Dataflow (--sdk_container_image), or Flink and Spark (--environment_type=DOCKER).
# Its Beam and Python must be those of the machine that submits the job: requirements.lock pins the one, the tag the other.
ARG PYTHON=3.11
ARG BEAM=2.77.0
FROM apache/beam_python${PYTHON}_sdk:${BEAM}
ARG BEAM

WORKDIR /gristmill
COPY requirements.lock ./
# Training needs torch, preparing corpora does not: the image is a tenth of the size without it.
RUN sed '/^torch==/d' requirements.lock > /tmp/requirements.txt \
    && pip install --no-cache-dir -r /tmp/requirements.txt \
    && python -c "import apache_beam as beam; assert beam.__version__ == '${BEAM}', beam.__version__"
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY pipelines pipelines
COPY trainer trainer
RUN pip install --no-cache-dir --no-deps .

# Workers are the parallelism: native thread pools would fight them. The entry point stays Beam's own.
ENV OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 RAYON_NUM_THREADS=1
WORKDIR /
