# pcx on a CPU. From a clone:  docker build -t pcx . && docker run --rm pcx
FROM python:3.12-slim

WORKDIR /pcx
COPY pyproject.toml README.md LICENSE ./
COPY pcx pcx
COPY examples examples
# a machine without a window draws into files
ENV MPLBACKEND=Agg PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN pip install ".[examples]"

# the demo; `docker run --rm -it pcx python` for a shell of your own
CMD ["python", "examples/classify.py"]
