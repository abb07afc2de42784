#!/bin/sh
# Format C with the pinned formatter.  Usage: tools/format.sh check|fix [--all]
# Without --all only the lines that differ from main (origin/main when there is one) count, so that old files stay as they
# are until somebody touches them.  Exit code 1: there is something to fix; 69: clang-format-14 is not installed.
set -eu
cd "$(dirname "$0")/.."

mode=${1:-}
scope=${2:-changed}
case $mode-$scope in
check-changed | fix-changed | check---all | fix---all) ;;
*)
	echo "usage: tools/format.sh check|fix [--all]" >&2
	exit 64
	;;
esac
command -v clang-format-14 >/dev/null || {
	echo "tools/format.sh: clang-format-14 is missing; 'tools/deps lint' installs it" >&2
	exit 69
}

if [ "$scope" = --all ]; then
	if [ "$mode" = fix ]; then
		git ls-files -z '*.c' '*.h' | xargs -0r clang-format-14 -i
	else
		git ls-files -z '*.c' '*.h' | xargs -0r clang-format-14 --dry-run -Werror
	fi
	exit
fi

base=HEAD
for main in origin/main main; do
	if git rev-parse --verify --quiet "$main" >/dev/null; then
		base=$(git merge-base "$main" HEAD || echo HEAD)
		break
	fi
done
# git-clang-format exits 0 in any case in this version; its words tell.
if [ "$mode" = fix ]; then
	git clang-format-14 --binary clang-format-14 --quiet --force --extensions c,h "$base"
	exit
fi
out=$(git clang-format-14 --binary clang-format-14 --quiet --diff --extensions c,h "$base")
[ -n "$out" ] || exit 0
echo "$out"
exit 1
