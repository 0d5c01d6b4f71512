//! Wire formats and the REST calls around them, as their protocol documents show them. Each transcript in
//! `tests/transcripts` runs against real nodes, and every frame that arrives is checked against `docs/protocol/asyncapi.yaml`.
//! `tests/transcripts/README.md` explains the format.

mod coverage;
mod document;
mod generators;
mod pairs;
mod pattern;
mod script;
mod socket;
mod stage;

use std::path::{Path, PathBuf};

use script::Script;

/// Folder of the transcripts.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts")
}

fn read(name: &str) -> Script {
    Script::read(&folder().join(format!("{name}.txt")))
}

macro_rules! transcripts {
    ($($name:ident)*) => {
        /// Names of all transcripts.
        const NAMES: &[&str] = &[$(stringify!($name)),*];

        mod transcript {
            $(
                // The proxy to the store goes on while the test's thread is busy, for example with its first HTTP client.
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    super::stage::play(&super::read(stringify!($name))).await;
                }
            )*
        }
    };
}

transcripts! {
    conversation_refusing
    conversation_speaking
    data
    direct_refusing
    direct_resync
    direct_speaking
    events
    native_asking
    native_coming_in
    native_limits
    native_listening
    native_passing
    native_restart
    native_sending
    notifications
    personas_answering
    personas_dev
    personas_refusing
    personas_speaking
    redis_keys
    rest_operations
    rest_status
    rest_websocket
    rooms_open
    rooms_refusing
    rooms_speaking
    status_invisible
    typing
    typing_alone
}

#[test]
fn every_transcript_has_a_test() {
    let mut files: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".txt").map(ToOwned::to_owned))
        .collect();
    files.sort();
    assert_eq!(files, NAMES, "transcripts! lists the files in order");
}
