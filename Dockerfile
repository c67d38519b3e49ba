# dlx with PyTorch for NVIDIA GPUs (x86-64 Linux); on a machine without one it trains on the CPU.
#
#   docker build -t dlx .
#   docker run --rm --gpus all --shm-size 8g -u "$(id -u):$(id -g)" -v "$PWD:/work" -v dlx-cache:/cache \
#       dlx train --data scans --out runs/scans
#
# --gpus all    takes the NVIDIA Container Toolkit on the host; leave it out to train on the CPU
# --shm-size    worker processes share the volumes in /dev/shm; Docker's 64 MiB are too small
# -u            the files in the mounted folder belong to you
# -v ...:/cache keeps prepared data for the next run
#
# `docker stop` and Ctrl-C end a run with its finished epochs on disk; the same command resumes it. docs/install.md

# Python as dlx is tested with it. torch's package for x86-64 Linux brings CUDA and cuDNN with it, so the image needs none.
FROM python:3.11.9-slim-bookworm

# torch in a layer of its own: some gigabytes that change rarely
COPY constraints.txt /opt/dlx/
RUN pip install --no-cache-dir --disable-pip-version-check "$(grep '^torch==' /opt/dlx/constraints.txt)"

COPY LICENSE README.md pyproject.toml /opt/dlx/
COPY src /opt/dlx/src
RUN pip install --no-cache-dir --disable-pip-version-check -c /opt/dlx/constraints.txt "/opt/dlx[all]" \
    && useradd --create-home --uid 1000 dlx \
    && mkdir /cache /work \
    && chmod 1777 /cache /work

# any user of the host may run it (-u), also one without an entry in the image's /etc/passwd, whose name torch asks for
ENV USER=dlx \
    DLX_CACHE_DIR=/cache

USER dlx
WORKDIR /work
ENTRYPOINT ["dlx"]
CMD ["--help"]
