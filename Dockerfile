# slimsweep with the packages of requirements.lock, as a user without rights. For CPUs:
#   docker build -t slimsweep .
# for NVIDIA GPUs (PyPI's torch brings the CUDA libraries; the machine brings the driver):
#   docker build -t slimsweep --build-arg TORCH_INDEX=https://pypi.org/simple .
# Then, with the results in ./runs:
#   docker run --rm -v "$PWD:/work" [--gpus all] --shm-size 2g slimsweep run configs/quickstart.yaml
ARG PYTHON=3.12
FROM python:${PYTHON}-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

# KubeRay's probes call wget
RUN apt-get update && apt-get install --yes --no-install-recommends wget && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 slimsweep

# the packages first: a change of the code does not install them again
WORKDIR /slimsweep
COPY requirements.lock ./
RUN grep '^torch==' requirements.lock > torch.lock \
    && pip install --no-cache-dir --index-url "${TORCH_INDEX}" --requirement torch.lock \
    && pip install --no-cache-dir --requirement requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY orchestrator orchestrator
COPY slimsweep slimsweep
COPY trials trials
COPY analysis analysis
RUN pip install --no-cache-dir --constraint requirements.lock '.[cluster,s3]' && rm -rf build ./*.egg-info

WORKDIR /work
RUN chown slimsweep /work
USER 1000
ENTRYPOINT ["slimsweep"]
CMD ["--help"]
