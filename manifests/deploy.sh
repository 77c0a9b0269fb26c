#!/usr/bin/env bash
# Deploys an image to the cluster of the current kubectl context, and waits until it runs.
#
#   manifests/deploy.sh [--print] IMAGE [COMPONENT…]
#
# IMAGE is a reference such as registry.example.com/syncsets:1.0 or …@sha256:…; a COMPONENT is a folder of
# manifests/components (tls, external, monitoring, autoscaling). --print writes the manifests to standard output and touches no cluster.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
print=
if [ "${1:-}" = --print ]; then
  print=yes
  shift
fi
image=${1:-}
if [ -z "$image" ]; then
  echo "usage: $0 [--print] IMAGE [COMPONENT…]   e.g. make deploy IMG=registry.example.com/syncsets:1.0 WITH=tls" >&2
  exit 2
fi
shift

# kustomize takes an image only from a file, and only relative paths: a layer of our own beside the base.
mkdir -p "$here/.deploy"
layer=$(mktemp -d "$here/.deploy/XXXXXX")
trap 'rm -rf "$layer"' EXIT
{
  echo 'apiVersion: kustomize.config.k8s.io/v1beta1'
  echo 'kind: Kustomization'
  echo 'resources: [../../base]'
  echo "images: [{ name: syncsets, newName: '$image' }]"
  echo 'components:'
  last=
  for component in "$@"; do
    if [ ! -d "$here/components/$component" ]; then
      echo "no component $component: there are $(ls -m "$here/components")" >&2
      exit 2
    fi
    # It changes what others bring.
    if [ "$component" = tls ]; then last=tls; else echo "  - ../../components/$component"; fi
  done
  if [ -n "$last" ]; then echo "  - ../../components/$last"; fi
} > "$layer/kustomization.yaml"

if [ -n "$print" ]; then
  kubectl kustomize "$layer"
  exit
fi
# The namespace and the secrets come first: pods without them would wait and say so.
kubectl apply --filename "$here/base/namespace.yaml"
case " $* " in
  *' external '*) "$here/secrets.sh" kubernetes external ;;
  *) "$here/secrets.sh" kubernetes ;;
esac
# The API before the controllers: new ones may make calls that an old API does not know, old ones find all that they know.
kubectl kustomize "$layer" | kubectl apply --selector 'app.kubernetes.io/component!=controllers' --filename -
kubectl --namespace syncsets rollout status deployment/api --timeout=15m
kubectl apply --kustomize "$layer"
kubectl --namespace syncsets rollout status deployment/controllers --timeout=5m
