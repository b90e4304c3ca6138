#!/usr/bin/env bash
# The cluster's MLflow server on its head, with PostgreSQL behind it. Once more, it starts what does not run.
#
#   MLFLOW_ARTIFACTS   where reports and models go: a folder, s3://..., gs://... (default: beside the database)
#
# The server listens on loopback alone: look at it through an SSH tunnel. PostgreSQL has no port at all but a
# socket in a folder of its owner, so there is no password to keep.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
state=$HOME/mlflow
port=5000
export PATH="$root/.venv/bin:$(find /usr/lib/postgresql -mindepth 2 -maxdepth 2 -name bin | sort -V | tail -n 1):$PATH"
command -v initdb >/dev/null || { echo "error: PostgreSQL is missing: apt-get install postgresql" >&2; exit 2; }

answers() { python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/health', timeout=5)" 2>/dev/null; }

mkdir -p -m 700 "$state"
if [ ! -e "$state/data/PG_VERSION" ]; then
    initdb -D "$state/data" --encoding=UTF8 --auth-local=peer --auth-host=reject >/dev/null
fi
if ! pg_ctl -D "$state/data" status >/dev/null; then
    pg_ctl -D "$state/data" -w -l "$state/postgresql.log" \
        -o "-c listen_addresses='' -c unix_socket_directories='$state'" start >/dev/null
fi
if [ -z "$(psql -h "$state" -d postgres -tAc "select 1 from pg_database where datname = 'mlflow'")" ]; then
    createdb -h "$state" mlflow
fi
if ! answers; then
    # Its job runner is for evaluations by language models: five processes and a gigabyte that nothing here uses.
    export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
    setsid nohup mlflow server --host 127.0.0.1 --port "$port" --workers 2 \
        --backend-store-uri "postgresql+psycopg2:///mlflow?host=$state" \
        --artifacts-destination "${MLFLOW_ARTIFACTS:-$state/artifacts}" \
        >>"$state/server.log" 2>&1 </dev/null &
    for _ in $(seq 120); do
        answers && break
        sleep 1
    done
fi
answers || { echo "error: the MLflow server does not answer: see $state/server.log" >&2; exit 1; }
echo "MLflow: http://127.0.0.1:$port on $(hostname)"
