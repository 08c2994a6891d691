//! A finding as a script that a person can run.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::world::{ASKED, Checked, HostFile, Item, LINEAGES, NOBODY, Places, User, World};

/// The first port of the world's HAProxy in a script, and of the one that is freshly started.
const PORTS: (u16, u16) = (24_100, 24_200);

/// The script: `journal` is what happened, in the words of its functions.
pub fn script(world: &World, class: &str, journal: &[String]) -> String {
    let places = Places { folder: PathBuf::from("$D") };
    let ports = |first: u16| (first..).take(world.binds.len()).collect::<Vec<_>>();
    let stats = world.stats_socket.is_some().then_some(Path::new("$D/run/stats.sock"));
    let mut text = String::from("#!/bin/bash\n");
    writeln!(
        text,
        "# World {}, HAProxy {}: {class}\n# HAPROXY=…/haproxy HAPROXY_CERTS=…/haproxy-certs bash THIS; needs openssl and socat.",
        world.seed, world.version
    )
    .unwrap();
    text.push_str(PREAMBLE);
    writeln!(text, "binds={} first={} fresh={}", world.binds.len(), PORTS.0, PORTS.1).unwrap();
    writeln!(text, "names=({})", ASKED.map(|name| format!("\"{name}\"")).join(" ")).unwrap();
    let environment = if world.demanding { "OPENSSL_CONF=$D/openssl.cnf" } else { "" };
    let mode = match (world.master, world.master_socket) {
        (true, true) => "-W -p $D/run/haproxy.pid -S $D/run/master.sock",
        (true, false) => "-W -p $D/run/haproxy.pid",
        (false, _) => "-db",
    };
    let ((user, group), _) = NOBODY;
    if world.user == User::Own {
        writeln!(text, "own() {{ chown {user}:{group} \"$@\"; }}").unwrap();
        let (uid, gid) = NOBODY.1;
        writeln!(text, "as=\"setpriv --reuid={uid} --regid={gid} --clear-groups\"").unwrap();
    }
    text.push_str("own $D/{sites,other,run}\n");
    writeln!(text, "environment=\"{environment}\" mode=\"{mode}\"").unwrap();
    let ask = match (world.stats_socket.is_some(), world.master_socket) {
        (true, _) => "socat - UNIX:$D/run/stats.sock",
        (_, true) => "{ printf '@1 '; cat; } | socat - UNIX:$D/run/master.sock",
        _ => "cat >/dev/null",
    };
    writeln!(text, "ask() {{ {ask}; }}").unwrap();
    for (name, first, stats) in [("haproxy.cfg", PORTS.0, stats), ("fresh.cfg", PORTS.1, None)] {
        let lua =
            if stats.is_some() || name == "haproxy.cfg" { "global\n  lua-load $D/gate.lua\n" } else { "" };
        write!(text, "cat >$D/{name} <<END\n{}{lua}END\n", world.config(&places, &ports(first), stats))
            .unwrap();
    }
    text.push_str("configure() { cat >$D/haproxy-certs.toml <<END\n");
    text.push_str("live_dir = \"$D/letsencrypt/live\"\nsites_dir = \"$D/sites\"\nexclude = $1\n");
    if world.user == User::Own {
        writeln!(text, "owner = \"{}:{}\"", NOBODY.0.0, NOBODY.0.1).unwrap();
    }
    if let HostFile::Lineage(number) = world.host {
        writeln!(text, "host_lineage = {:?}\nhost_file = \"$D/host.pem\"", LINEAGES[number]).unwrap();
    }
    text.push_str("[[haproxy]]\nunit = \"no-such-unit.service\"\npidfile = \"$D/run/haproxy.pid\"\n");
    let binary = match world.checked {
        Checked::Whole => "$HAPROXY",
        Checked::Unaware => "$D/unaware-haproxy",
        Checked::Never => "",
    };
    let master_socket = if world.master_socket { "$D/run/master.sock" } else { "" };
    writeln!(
        text,
        "master_socket = \"{master_socket}\"\nbinary = \"{binary}\"\nname = \"$name\"\ntimeout = \"10s\""
    )
    .unwrap();
    if let Some(path) = world.sites_dir("$D") {
        writeln!(text, "sites_dir = \"{path}\"").unwrap();
    }
    if world.stats_socket == Some(true) {
        text.push_str("runtime_socket = \"$D/run/stats.sock\"\n");
    }
    if world.probe {
        let sites = |bind: &super::world::Bind| {
            matches!(bind.items[..], [Item::Sites(_)]) && bind.default_crt.is_none()
        };
        let probed = ports(PORTS.0).into_iter().zip(&world.binds).filter(|(_, bind)| sites(bind));
        let addresses: Vec<String> = probed.map(|(port, _)| format!("\"127.0.0.1:{port}\"")).collect();
        writeln!(text, "probe = [{}]", addresses.join(", ")).unwrap();
    }
    if let Some(method) = world.forced {
        writeln!(text, "reload = {method:?}").unwrap();
    }
    text.push_str("END\n}\nconfigure '[]'\n\n");
    for line in journal {
        writeln!(text, "{line}").unwrap();
    }
    text
}

const PREAMBLE: &str = r#"set -u
HAPROXY=$(command -v "${HAPROXY:-haproxy}") HAPROXY_CERTS=$(command -v "${HAPROXY_CERTS:-haproxy-certs}")
D=$(mktemp -d) live= name=haproxy as=
echo "everything is in $D"
trap 'stop' EXIT
mkdir -m 700 -p $D/sites $D/other $D/run $D/ca $D/letsencrypt/{live,archive,renewal}
mkdir $D/empty
chmod 755 $D $D/empty
own() { :; }
ln -s sites $D/link
echo 'if os.rename("'$D'/run/gate", "'$D'/run/held") then local f = io.open("'$D'/run/held"); f:read("*a"); f:close() end' >$D/gate.lua
printf 'openssl_conf = o\n[o]\nssl_conf = s\n[s]\nsystem_default = d\n[d]\nCipherString = DEFAULT@SECLEVEL=3\n' >$D/openssl.cnf
printf '#!/bin/sh\ncase "$*" in *.check-*) unset OPENSSL_CONF;; esac\nexec %s "$@"\n' $HAPROXY >$D/unaware-haproxy
chmod 755 $D/unaware-haproxy
: >$D/ca/index
cat >$D/ca/ca.cnf <<END
[ca]
default_ca = c
[c]
database = $D/ca/index
new_certs_dir = $D/ca
rand_serial = yes
unique_subject = no
policy = p
default_md = sha256
copy_extensions = copy
[p]
commonName = supplied
END
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 4000 -subj "/CN=test CA" \
  -keyout $D/ca/ca.key -out $D/ca/ca.pem 2>/dev/null

count=0
# pair KIND NAME,NAME [expired|sha1]: $D/ca/key and $D/ca/cert
pair() {
  local new from=$(date -u -d '1 hour ago' +%Y%m%d%H%M%SZ) to=$(date -u -d '90 days' +%Y%m%d%H%M%SZ)
  case $1 in P256) new='ec -pkeyopt ec_paramgen_curve:P-256';; P384) new='ec -pkeyopt ec_paramgen_curve:P-384';; *) new=rsa:2048;; esac
  [ "${3-}" != expired ] || { from=$(date -u -d '91 days ago' +%Y%m%d%H%M%SZ); to=$(date -u -d '1 day ago' +%Y%m%d%H%M%SZ); }
  openssl req -newkey $new -nodes -subj "/CN=#$((++count)) $1 $2" -addext "subjectAltName=DNS:${2//,/,DNS:}" -keyout $D/ca/key -out $D/ca/req 2>/dev/null
  openssl ca -batch -notext -config $D/ca/ca.cnf -cert $D/ca/ca.pem -keyfile $D/ca/ca.key -in $D/ca/req -out $D/ca/cert \
    -startdate $from -enddate $to $([ "${3-}" != sha1 ] || echo -md sha1) 2>/dev/null
}
# lineage NAME KIND NAME,NAME […]: certbot issues or renews it
lineage() {
  pair $2 $3 ${4-}
  local a=$D/letsencrypt/archive/$1 l=$D/letsencrypt/live/$1 n=1 f
  mkdir -p $a $l
  while [ -e $a/cert$n.pem ]; do n=$((n + 1)); done
  cp $D/ca/key $a/privkey$n.pem; cp $D/ca/cert $a/cert$n.pem; cp $D/ca/ca.pem $a/chain$n.pem; cat $D/ca/cert $D/ca/ca.pem >$a/fullchain$n.pem
  for f in cert privkey chain fullchain; do ln -sfn ../../archive/$1/$f$n.pem $l/$f.pem; done
  echo "archive_dir = $a" >$D/letsencrypt/renewal/$1.conf
}
delete() { rm -r $D/letsencrypt/{live,archive}/$1 $D/letsencrypt/renewal/$1.conf; }
# foreign FILE KIND NAME,NAME […]: somebody puts or changes a file
foreign() { pair $2 $3 ${4-}; cat $D/ca/key $D/ca/cert $D/ca/ca.pem >$D/$1; own $D/$1; }
run() { echo "== haproxy-certs assemble $*"; $HAPROXY_CERTS --config $D/haproxy-certs.toml assemble "$@"; echo "exit status $?"; }
answers() { # of the HAProxy whose first port is $1
  local b name kind algorithms
  for ((b = 0; b < binds; b++)); do for name in "${names[@]}"; do for kind in ECDSA RSA; do
    algorithms=ECDSA+SHA256:ECDSA+SHA384:ECDSA+SHA512
    [ $kind = ECDSA ] || algorithms=RSA-PSS+SHA256:RSA-PSS+SHA384:RSA-PSS+SHA512:RSA+SHA256:RSA+SHA384:RSA+SHA512
    echo "bind $b, ${name:-no name}, $kind: $(openssl s_client -connect 127.0.0.1:$(($1 + b)) ${name:+-servername $name} \
      $([ -n "$name" ] || echo -noservername) -sigalgs $algorithms </dev/null 2>/dev/null | openssl x509 -noout -subject -serial 2>/dev/null | tr '\n' ' ')"
  done; done; done
}
serves() { local b; for ((b = 0; b < binds; b++)); do until (exec 3<>/dev/tcp/127.0.0.1/$(($1 + b))) 2>/dev/null; do kill -0 $2 2>/dev/null || return 1; sleep .02; done; done; }
compare() {
  $as env $environment $HAPROXY -db -f $D/fresh.cfg >$D/fresh.log 2>&1 & local pid=$!
  if ! serves $fresh $pid; then echo "** A fresh start fails:"; cat $D/fresh.log; return; fi
  answers $fresh >$D/would; kill $pid; wait $pid 2>/dev/null
  answers $first >$D/does
  if diff $D/does $D/would >$D/diff; then echo "served as a fresh start would"; else echo "** served (<), a fresh start (>):"; cat $D/diff; fi
}
start() { (cd $D; exec $as env $environment $HAPROXY $mode -f $D/haproxy.cfg >>$D/haproxy.log 2>&1) & live=$!
  [ "$mode" != -db ] || echo $live >$D/run/haproxy.pid
  serves $first $live && sleep .3 || { echo "** HAProxy doesn't start:"; tail $D/haproxy.log; }; }
stop() { [ -z "$live" ] || { kill $live; wait $live 2>/dev/null; live=; }; }
reload() { kill -USR2 $live; sleep 2; }
begin_reload() { mkfifo $D/run/gate; own $D/run/gate; kill -USR2 $live; until [ -e $D/run/held ]; do sleep .02; done; exec 4>$D/run/held; }
# begin begun|committed SECONDS: a run up to so long after it began, or has put the first file into place
begin() { echo "== haproxy-certs assemble, with something $2 s after it has $1"; local before=$(stat -c %y $D/sites)
  $HAPROXY_CERTS --config $D/haproxy-certs.toml assemble & ours=$!
  [ $1 = begun ] || while [ "$(stat -c %y $D/sites)" = "$before" ] && kill -0 $ours 2>/dev/null; do :; done
  sleep $2; }
end() { wait $ours 2>/dev/null; echo "exit status $?"; }
run_meanwhile() { begin committed .3; exec 4>&-; end; sleep 1; rm -f $D/run/held; }
run_killed() { begin "$@"; kill -KILL $ours; end; }
run_and_reload() { begin "$@"; kill -USR2 $live; end; sleep 2; }
run_and_transaction() { begin "$@"; transaction; end; }
transaction() { store=$(echo "show ssl cert" | ask | grep -m1 /sites/); pair P256 somebody.test
  { echo "set ssl cert $store <<"; cat $D/ca/key $D/ca/cert; echo; } | ask; }
end_transaction() { echo "abort ssl cert $store" | ask; }
break_config() { cp $D/haproxy.cfg $D/whole.cfg; sed -i '1i no-such-keyword' $D/haproxy.cfg; }
mend_config() { cp $D/whole.cfg $D/haproxy.cfg; }
"#;
