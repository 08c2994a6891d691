# Sourced by the benchmarks that need a HAProxy with the combined PEMs of a large tree loaded.
#
#   prepare VERSION    builds the program and finds that HAProxy; sets program, examples, haproxy, bench, address
#   load N             deploys a tree of N lineages and starts HAProxy with it; sets tree, sites, config, lineage
#   stop               ends it; done at exit, too
#
# Everything is below target/bench (or BENCH_DIR).

prepare() {
  local target=${CARGO_TARGET_DIR:-target}
  bench=$(realpath -m "${BENCH_DIR:-$target/bench}")
  mkdir -p "$bench"
  cargo build --quiet --release
  cargo build --quiet --examples
  program=$(realpath "$target/release/haproxy-certs")
  examples=$(realpath "$target/debug/examples")
  haproxy=$(realpath "${HAPROXY_CERTS_TESTBED:-$target/testbed}/haproxy-$1/usr/sbin/haproxy")
  "$haproxy" -v >/dev/null || { echo "no HAProxy $1; run tests/install" >&2; exit 1; }
  address=127.0.0.1:28443
  master=
  trap stop EXIT
}

stop() { if [ -n "$master" ]; then kill "$master" 2>/dev/null || true; wait "$master" 2>/dev/null || true; master=; fi; }

load() {
  tree=$bench/loop-tree-$1 sites=$bench/loop-sites-$1 config=$bench/loop.toml
  rm -rf "$sites"
  "$examples/bench-tree" "$tree" "$1"
  lineage=$(ls "$tree/live" | sed -n "$(($1 / 2))p")
  printf 'live_dir = "%s/live"\nsites_dir = "%s"\n[[haproxy]]\npidfile = "%s/loop.pid"\nmaster_socket = "%s/loop-master.sock"\nunit = "no-such.service"\nbinary = "%s"\n' \
    "$tree" "$sites" "$bench" "$bench" "$haproxy" >"$config"
  "$program" --config "$config" -q assemble --reload none
  printf 'global\n stats socket %s/loop-admin.sock level admin\ndefaults\n mode http\n timeout connect 9s\n timeout client 9s\n timeout server 9s\nfrontend f\n bind %s ssl crt %s\n http-request return status 200\n' \
    "$bench" "$address" "$sites" >"$bench/loop.cfg"
  "$haproxy" -W -S "$bench/loop-master.sock" -p "$bench/loop.pid" -f "$bench/loop.cfg" 2>"$bench/loop.log" &
  master=$!
  until openssl s_client -connect "$address" -servername "$lineage" </dev/null >/dev/null 2>&1; do
    kill -0 "$master" || { cat "$bench/loop.log" >&2; exit 1; }
    sleep 0.1
  done
}

haproxy_version() { "$haproxy" -v | sed -n '1s/.*version \([^ ]*\).*/\1/p'; }
