#!/usr/bin/env bash
# Packages the chart for publication: `scripts/package-chart.sh IMAGE URL FOLDER`. IMAGE is the published image without a tag, URL
# the repository's address: the sources know neither, so this writes both into the package. .github/workflows/release.yml runs it.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ $# != 3 ]; then
    echo "usage: scripts/package-chart.sh ghcr.io/owner/switchboard https://github.com/owner/switchboard dist" >&2
    exit 2
fi
image=$1 url=${2%/} folder=$3
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r helm/switchboard "$copy/switchboard"
chart=$copy/switchboard

# The first `repository` of values.yaml is the image's.
sed -i "0,/^  repository: \"\"\$/s||  repository: $image|" "$chart/values.yaml"
sed -i "s|^annotations:\$|&\n  artifacthub.io/images: \"[{name: switchboard, image: '$image:$version', platforms: [linux/amd64, linux/arm64]}]\"|" "$chart/Chart.yaml"
sed -i '/^# Without home, sources and icon/,$d' "$chart/Chart.yaml"
cat >>"$chart/Chart.yaml" <<END
home: $url
sources: [$url]
icon: $url/raw/v$version/docs/pictures/icon.svg
END
grep -q "^  repository: $image\$" "$chart/values.yaml"
"${HELM:-helm}" package "$chart" --destination "$folder"
