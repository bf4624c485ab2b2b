#!/bin/sh
# Builds the image that a stack names, with docker, podman or buildah, whichever is there (or BUILDER).
# IMAGE overrides its name, BASE the Python image that it is built on (a mirror's, for example), STACK the stack. LDAP=1 adds
# python-ldap, which sign-on with a directory needs. PUSH=1 pushes it too, and says with which digest the registry has it.
set -eu
cd "$(dirname "$0")/.."
if [ ! -f requirements/superset.txt ]; then
  echo "image.sh: $PWD is no checkout of superset-async: the image is made from its locked requirements. Run make image there" >&2
  exit 1
fi

if [ -z "${BUILDER:-}" ]; then
  for candidate in docker podman buildah; do
    if command -v "$candidate" >/dev/null 2>&1; then
      BUILDER=$candidate
      break
    fi
  done
fi
if [ -z "${BUILDER:-}" ]; then
  echo "make image: needs docker, podman or buildah, and none is on PATH. Install one, or name it: make image BUILDER=/path" >&2
  exit 1
fi
if [ -z "${IMAGE:-}" ]; then
  IMAGE=$(.venv/bin/python -c '
import sys
from topology import stack_file
from topology.plan import plan
print(plan(sys.argv[1], stack_file.read(sys.argv[1])).images.superset)' "${STACK:-local}")
fi

# A context of just what the image carries: no secret, state or environment of this folder can get into a layer.
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
mkdir "$context/requirements"
cp requirements/superset.txt requirements/ldap.txt "$context/requirements/"
cp -R topology "$context/topology"
cp -R runtime "$context/runtime"
find "$context" -name __pycache__ -type d -prune -exec rm -rf {} +
# The image's user is not the one who builds it.
chmod -R a+rX "$context"

echo "building $IMAGE with $BUILDER"
"$BUILDER" build --file "$context/runtime/Dockerfile" --tag "$IMAGE" ${BASE:+--build-arg "BASE=$BASE"} ${LDAP:+--build-arg "LDAP=$LDAP"} "$context"
echo "built $IMAGE"
[ -n "${PUSH:-}" ] || exit 0

case ${BUILDER##*/} in
docker)
  "$BUILDER" push "$IMAGE"
  digest=$("$BUILDER" inspect --format '{{index .RepoDigests 0}}' "$IMAGE")
  digest=${digest#*@}
  ;;
*)
  "$BUILDER" push --digestfile "$context/digest" "$IMAGE"
  digest=$(cat "$context/digest")
  ;;
esac
echo "images.superset: $IMAGE@$digest"
