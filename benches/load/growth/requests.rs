//! A client that makes one request at a time, and the cost of a kind of request.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    curve::{Cost, Work},
    deployment::Deployment,
};
use crate::{
    BenchResult,
    measure::{Cpu, Latencies, Latency},
    support::token,
    wire::{self, Socket},
};

/// Maximum time for an answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Requests before measuring begins, and the least number that is measured.
const WARM_UP: usize = 3;
const LEAST: u64 = 5;
/// Maximum number of requests that are measured.
const MOST: u64 = 1_000;
/// Work that follows the answers is part of a request.
const SETTLE: Duration = Duration::from_millis(500);

/// A native socket.
pub struct Requests {
    socket: Socket,
    next: u64,
    /// The newest entry of the log to which it sends.
    pub head: u64,
}

impl Requests {
    pub async fn connect(deployment: &Deployment, user: &str) -> BenchResult<Self> {
        let path = format!("/v1/ws?token={}", token(user));
        let socket = Socket::open(deployment.addresses()[0], &path).await?;
        socket.expect(r#""authenticated""#).await?;
        Ok(Self { socket, next: 1, head: 0 })
    }

    /// The number of the next request.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Sends a frame with a `ref`, and returns the answer, which is complete once `entries`
    /// messages have followed it.
    pub async fn ask(&mut self, fields: &str, entries: u64) -> BenchResult<String> {
        let number = self.next;
        self.next += 1;
        self.socket.write(&wire::text(&format!(r#"{{{fields},"ref":{number}}}"#))).await?;
        let (mut answer, mut messages) = (None, 0);
        let reading = async {
            while answer.is_none() || messages < entries {
                let read = self.socket.read(|payload| {
                    if payload.starts_with(br#"{"type":"message","#) {
                        messages += 1;
                    } else {
                        let text = String::from_utf8_lossy(payload);
                        let is_answer = wire::number(&text, r#""ref":"#) == Some(number);
                        answer = answer.take().or_else(|| is_answer.then(|| text.into_owned()));
                    }
                });
                read.await?;
                if answer.as_ref().is_some_and(|answer| answer.starts_with(r#"{"type":"error""#)) {
                    break;
                }
            }
            Ok::<_, std::io::Error>(())
        };
        tokio::time::timeout(PATIENCE, reading).await.map_err(|_| format!("no answer to {fields}"))??;
        let answer = answer.unwrap_or_default();
        if answer.starts_with(r#"{"type":"error""#) { Err(answer.into()) } else { Ok(answer) }
    }
}

/// The costs of each of some requests.
pub struct Each {
    /// In µs, without that of an idle deployment.
    pub cpu: Cpu,
    pub latency: Latency,
}

impl Each {
    /// Measures what `make` does, again and again for a time. `idle` is the CPU per second that is none of it.
    pub async fn measure(
        deployment: &Deployment,
        idle: Cpu,
        window: Duration,
        mut make: impl AsyncFnMut() -> BenchResult<()>,
    ) -> BenchResult<Self> {
        for _ in 0..WARM_UP {
            make().await?;
        }
        tokio::time::sleep(SETTLE).await;
        let mut latencies = Latencies::new();
        let (start, before) = (Instant::now(), deployment.cpu());
        while (start.elapsed() < window || latencies.count() < LEAST) && latencies.count() < MOST {
            let began = wire::now();
            make().await?;
            latencies.add(wire::now() - began);
        }
        tokio::time::sleep(SETTLE).await;
        let cpu = deployment.cpu().since(before).since(idle.times(start.elapsed().as_secs_f64()));
        Ok(Self { cpu: cpu.micros_per(latencies.count()), latency: latencies.summary() })
    }

    /// The CPU of all parts, as a line of a curve.
    pub fn all_parts(&self, what: &str, work: Work) -> Cost {
        let Cpu { node, redis, postgres, .. } = self.cpu;
        Cost::cpu(what, work, node + redis + postgres)
    }

    /// The CPU of single parts and the latency, as lines that the picture leaves out.
    pub fn details(&self, what: &str, work: Work) -> Vec<Cost> {
        vec![
            Cost::cpu(format!("{what}: node"), work, self.cpu.node).not_drawn(),
            Cost::cpu(format!("{what}: PostgreSQL"), work, self.cpu.postgres).not_drawn(),
            Cost::latency(format!("{what}: p50"), work, self.latency.p50).not_drawn(),
        ]
    }
}
