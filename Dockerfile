# docker build -t attnpool_backbones .
# docker build -t attnpool_backbones:cuda --build-arg BASE=nvidia/cuda:12.8.1-runtime-ubuntu24.04 .
# PyPI's torch for Linux brings CUDA's libraries, 4 GB of them; an index with one for CPUs saves them:
# docker build -t attnpool_backbones --build-arg PIP_EXTRA_INDEX_URL=... .
# docker run --rm -it attnpool_backbones attnpool quickstart
ARG BASE=ubuntu:24.04
FROM ${BASE}

# libgl1 and libglib2.0-0 are what opencv needs; gcc, libc6-dev and python3-dev what Triton compiles with on a GPU
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates gcc git libc6-dev libgl1 libglib2.0-0 make python3 python3-dev python3-pip python3-venv \
    && rm -rf /var/lib/apt/lists/*

ARG PIP_EXTRA_INDEX_URL
WORKDIR /attnpool_backbones
COPY . .
RUN make setup
ENV PATH=/attnpool_backbones/.venv/bin:${PATH}
CMD ["attnpool", "--help"]
