//! The default address belongs to whoever listens there: a command reads from that server only when it has something of this
//! root. Shown in a network namespace, where the default address is nobody's else.

use std::process::Command;

use crate::harness::{TestServer, clean, ended, have, sources};

/// Waits for a server, then for what the first argument says.
const SCRIPT: &str = r#"
set -u
ip link set lo up
"$SERVER" -a 127.0.0.1 -p 4222 -js -sd "$PWD/theirs" >/dev/null 2>&1 &
for i in $(seq 100); do (: </dev/tcp/127.0.0.1/4222) 2>/dev/null && break; sleep 0.1; done
"$TOOL" ls; echo "nothing of ours: $?"
mkdir -p .oarlock/nats
"$TOOL" ls; echo "a store of ours: $?"
rm -r .oarlock
"$TOOL" worker orchestrator >/dev/null 2>&1 &
worker=$!
for i in $(seq 100); do "$TOOL" doctor 2>/dev/null | grep -q 'are there, as this version' && break; sleep 0.1; done
kill $worker; wait $worker
"$TOOL" doctor | grep -e 'are there, as this version' -e 'is reachable'
"$TOOL" ls; echo "theirs by then: $?"
kill %1; wait
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_merely_listens_there_is_not_read_from() {
    let allowed = Command::new("unshare").args(["--net", "true"]).output().is_ok_and(|output| output.status.success());
    if !have("netns", allowed, "a network namespace needs root") {
        return;
    }
    let server = TestServer::bare().await;
    let mut command = Command::new("unshare");
    command.args(["--net", "bash", "-c", SCRIPT]).current_dir(server.folder.path());
    clean(&mut command);
    command.env("TOOL", env!("CARGO_BIN_EXE_oarlock")).env("SERVER", sources().find().await.unwrap());
    command.env("HOME", server.folder.path()).env_remove("XDG_CONFIG_HOME");
    let ended = ended(command, b"").await;
    assert!(ended.err.contains("the server at nats://127.0.0.1:4222 has nothing of root oarlock"), "{ended:?}");
    assert!(ended.out.contains("nothing of ours: 8") && ended.out.contains("a store of ours: 0"), "{ended:?}");
    // An orchestrator has been there: its streams are this root's.
    assert!(ended.out.contains("is reachable") && ended.out.contains("are there, as this version"), "{ended:?}");
    assert!(ended.out.contains("theirs by then: 0"), "{ended:?}");
}
