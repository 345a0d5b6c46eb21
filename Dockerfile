# CPU:   docker build -t stremn .
# CUDA:  docker build -t stremn --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .
# Use:   docker run --rm -v "$PWD:/data" stremn segment clip.mp4 --box 120,80,200,150 -o out
# Page:  docker run --rm -p 127.0.0.1:7860:7860 stremn web --host 0.0.0.0
FROM python:3.12-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=train,web,export

# The versions of PyTorch and torchvision must fit each other, so both come from one index.
RUN pip install --no-cache-dir "torch>=2.9" "torchvision>=0.24" --index-url "${TORCH_INDEX}"

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY recipes recipes
COPY src src
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ".[${EXTRAS}]" \
    && useradd --create-home --uid 1000 stremn \
    && mkdir /data \
    && chown stremn /data

USER 1000
WORKDIR /data
ENTRYPOINT ["stremn"]
CMD ["--help"]
