#!/usr/bin/env bash
# Makes the secrets of a deployment, once, from random bytes.
#
#   manifests/secrets.sh compose      writes manifests/.env, which compose.yaml reads
#   manifests/secrets.sh kubernetes   makes the secrets syncsets, postgres and rabbitmq in the namespace syncsets;
#                                     with the word `external` only syncsets, with the DATABASE_URL and AMQP_URL given
#
# What exists is left as it is, because nothing that is stored can be read without the encryption key that it was
# written with: keep a copy of it. No secret is printed, or passed as an argument that the list of processes shows.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
namespace=syncsets

# BYTES random bytes, in letters that need no escape inside a URL.
random() { head -c "$1" /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n'; }
# 32 bytes in standard base64: the form that ENCRYPTION_KEY has.
encryption_key() { head -c 32 /dev/urandom | base64 | tr -d '\n'; }

compose() {
  local file=${1:-$here/.env}
  if [ -e "$file" ]; then
    echo "$file is there already and stays as it is"
    return
  fi
  # Written elsewhere and moved: a file cut short by a full disk would be kept for ever.
  local draft
  draft=$(umask 077 && mktemp "$file.XXXXXX")
  cat > "$draft" <<ENV
POSTGRES_PASSWORD=$(random 24)
DATABASE_PASSWORD=$(random 24)
RABBITMQ_PASSWORD=$(random 24)
API_TOKEN=$(random 32)
ENCRYPTION_KEY=$(encryption_key)
ENV
  mv "$draft" "$file"
  echo "wrote $file"
}

# NAME KEY VALUE [KEY VALUE…]
create() {
  local name=$1
  shift
  rm -rf "$draft"/*
  while [ $# -gt 0 ]; do
    printf %s "$2" > "$draft/$1"
    shift 2
  done
  kubectl --namespace "$namespace" create secret generic "$name" --from-file="$draft"
}

# Asks for all names rather than for one: an API server that cannot be reached must not look like an absent secret.
absent() { ! grep -qx "secret/$1" <<< "$existing"; }
password() { kubectl --namespace "$namespace" get secret "$1" --output 'jsonpath={.data.password}' | base64 --decode; }

kubernetes() {
  draft=$(mktemp -d) # readable by its owner alone
  trap 'rm -rf "$draft"' EXIT
  existing=$(kubectl --namespace "$namespace" get secrets --output name)
  if ! absent syncsets; then
    echo 'secret/syncsets is there already and stays as it is'
    return
  fi
  local database_url amqp_url
  if [ "${1:-}" = external ]; then
    database_url=${DATABASE_URL:?must hold the URL of the external Postgres}
    amqp_url=${AMQP_URL:?must hold the URL of the external RabbitMQ}
  else
    # These two may be older than the one that is missing: the URLs take the passwords that the servers know.
    absent postgres && create postgres superuser-password "$(random 24)" password "$(random 24)"
    absent rabbitmq && create rabbitmq password "$(random 24)"
    database_url="postgres://syncsets:$(password postgres)@postgres:5432/syncsets"
    amqp_url="amqp://syncsets:$(password rabbitmq)@rabbitmq:5672"
  fi
  create syncsets database-url "$database_url" amqp-url "$amqp_url" \
    api-token "$(random 32)" encryption-key "$(encryption_key)"
}

case ${1:-} in
  compose) compose "${2:-}" ;;
  kubernetes) kubernetes "${2:-}" ;;
  *)
    echo "usage: $0 compose | kubernetes [external]" >&2
    exit 2
    ;;
esac
