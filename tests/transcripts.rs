//! The wire formats and the REST calls around them, as their documents show them: each transcript in
//! `tests/transcripts` is played against real nodes, and every frame that comes is checked against
//! `docs/protocol/asyncapi.yaml`. The transcripts' format is explained in `tests/transcripts/README.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on must panic")]

mod support;

#[path = "transcripts/coverage.rs"]
mod coverage;
#[path = "transcripts/document.rs"]
mod document;
#[path = "transcripts/pairs.rs"]
mod pairs;
#[path = "transcripts/pattern.rs"]
mod pattern;
#[path = "transcripts/script.rs"]
mod script;
#[path = "transcripts/socket.rs"]
mod socket;
#[path = "transcripts/stage.rs"]
mod stage;

use std::path::{Path, PathBuf};

use script::Script;

/// The folder of the transcripts.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts")
}

fn read(name: &str) -> Script {
    Script::read(&folder().join(format!("{name}.txt")))
}

macro_rules! transcripts {
    ($($name:ident)*) => {
        /// Every transcript.
        const NAMES: &[&str] = &[$(stringify!($name)),*];

        mod transcript {
            $(
                #[tokio::test]
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
    direct_refusing
    direct_resync
    direct_speaking
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
fn every_transcript_is_played() {
    let mut files: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".txt").map(ToOwned::to_owned))
        .collect();
    files.sort();
    assert_eq!(files, NAMES, "transcripts! lists the files in order");
}
