# The operator's image: its locked dependencies in a venv without pip, the package, the exchange calendars as a table.
# Debian images lack Python, so each stage installs what it needs; the same file builds with Docker and in the sandbox.
# syntax-neutral on purpose: no heredocs, no --mount, which older builders refuse.

FROM debian:trixie-slim AS dependencies
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 python3-venv python3-pip ca-certificates \
 && rm -rf /var/lib/apt/lists/*
COPY requirements/operator.txt /build/operator.txt
# --python installs into the venv from outside, so that neither pip nor setuptools end up in the image.
RUN python3 -m venv --without-pip /opt/fiduciary \
 && python3 -m pip --python /opt/fiduciary/bin/python install --no-cache-dir --require-hashes --only-binary :all: -r /build/operator.txt

# exchange_calendars needs pandas (200 MB); what the operator needs of it are a few hundred kilobytes of sessions.
FROM dependencies AS calendars
COPY requirements/calendars.txt /build/calendars.txt
RUN python3 -m venv --without-pip /opt/calendars \
 && python3 -m pip --python /opt/calendars/bin/python install --no-cache-dir --require-hashes --only-binary :all: -r /build/calendars.txt
COPY operator/calendars/generate.py /build/generate.py
RUN /opt/calendars/bin/python /build/generate.py /build/calendars.json

FROM dependencies AS package
COPY operator/fiduciary /opt/fiduciary/app/fiduciary
# The root file system is read-only at run time: byte code must be there already.
RUN python3 -m compileall -q /opt/fiduciary/app

# Where Debian's image does not tell apt to keep none, its two caches of package lists are a third of the image.
FROM debian:trixie-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 ca-certificates \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin
COPY --from=package /opt/fiduciary /opt/fiduciary
COPY --from=calendars /build/calendars.json /opt/fiduciary/app/fiduciary/calendars.json
# LOGNAME: kopf asks for the user's name, and a user id that some platforms choose has no entry in /etc/passwd.
ENV PATH=/opt/fiduciary/bin:$PATH \
    PYTHONPATH=/opt/fiduciary/app \
    LOGNAME=fiduciary \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /opt/fiduciary
ENTRYPOINT ["python", "-m", "fiduciary"]
