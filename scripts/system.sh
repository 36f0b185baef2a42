#!/usr/bin/env bash
# What the tests use outside of Python: Chromium with its driver (the page of rwalk, the pictures of the documentation) and a C
# compiler with gcov (faultloc's collector). For Debian and Ubuntu; elsewhere, install the same by other means.
#   scripts/system.sh          installs what is missing, with sudo where it is needed
set -euo pipefail
missing=()
command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || missing+=(chromium)
command -v chromedriver >/dev/null || missing+=(chromium-driver)
{ command -v gcc && command -v gcov; } >/dev/null || missing+=(gcc)
if [ ${#missing[@]} -eq 0 ]; then echo "nothing is missing"; exit 0; fi
command -v apt-get >/dev/null || { echo "no apt-get here: install ${missing[*]} by hand" >&2; exit 1; }
root=()
[ "$(id -u)" -eq 0 ] || root=(sudo)
"${root[@]}" apt-get update -qq
"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
