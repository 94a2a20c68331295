//! A gRPC fuzzer over descriptors: every method of the given services is called with what a client should send, what it just may send, and what
//! it must not.
//!
//! # Theory of operation
//!
//! A [`Case`] is a call made of nothing but its number and the seed: a method, a message that is random within the contract's own rules
//! ([`message`]), often damaged afterwards, and headers ([`wire`]). So a failure names a seed and a case, and `CLOUD_CHAOS_CASE` runs that one case alone.
//!
//! What must hold for each ([`judge`]): an answer before the limit, in gRPC's own form, and none that says that the server did not know what to do:
//! UNKNOWN, DATA_LOSS, or INTERNAL. There is one exception that gRPC itself prescribes (its `statuscodes.md`): a message that cannot be parsed
//! is INTERNAL in every gRPC library, and the library answers it before the service is asked. Whether a message can be parsed is judged here with the
//! descriptors, so the exception covers nothing else; but they take a field of another wire type for an unknown one, where the server's library
//! refuses it in its own words: of a damaged message these are taken too.

pub mod message;
pub mod wire;

use std::{fmt, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use cloud_contracts::DESCRIPTORS;
use cloud_rest_build::options::MethodOptions;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, ServiceDescriptor};
use rand::{Rng as _, rngs::StdRng};
use tokio::task::JoinSet;

use crate::chaos::{self, Chaos};
use message::Words;
use wire::{Answer, Target};

/// The variable with the one case to run.
const CASE: &str = "CLOUD_CHAOS_CASE";
/// How many calls are under way at a time.
const CALLERS: u64 = 8;
/// How long any call may take. Calls that wait (a stop) are given less by the gateway's flags.
const LIMIT: Duration = Duration::from_secs(15);
/// Codes that no caller may be able to cause (google.rpc.Code).
const UNKNOWN: i32 = 2;
const INTERNAL: i32 = 13;
const DATA_LOSS: i32 = 15;
/// How the servers' library begins to say that a message cannot be parsed, as `grpc-message` has it.
const UNPARSED: &str = "failed%20to%20decode%20Protobuf%20message";

/// What is called, and with what.
#[derive(Debug, Clone)]
pub struct Fuzzer {
    /// Where.
    pub target: Target,
    /// The methods.
    pub methods: Vec<MethodDescriptor>,
    /// What strings are made of.
    pub words: Words,
    /// The API key, where the target wants one.
    pub key: Option<String>,
}

/// How many calls came to what.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// All.
    pub calls: u64,
    /// Answered OK.
    pub ok: u64,
}

/// The methods of the contracts' services whose full name begins with one of these, in the order of the contracts.
///
/// # Errors
/// There is none: a fuzzer of nothing would pass.
pub fn methods(services: &[&str]) -> anyhow::Result<Vec<MethodDescriptor>> {
    methods_of(DESCRIPTORS, services)
}

/// As [`methods`], of other descriptors.
///
/// # Errors
/// As there; or these are no descriptors.
pub fn methods_of(descriptors: &[u8], services: &[&str]) -> anyhow::Result<Vec<MethodDescriptor>> {
    let pool = DescriptorPool::decode(descriptors)?;
    let wanted = |s: &ServiceDescriptor| services.iter().any(|name| s.full_name().starts_with(name));
    let methods: Vec<_> = pool.services().filter(wanted).flat_map(|s| s.methods().collect::<Vec<_>>()).collect();
    ensure!(!methods.is_empty(), "no service is called {services:?}");
    Ok(methods)
}

/// One call.
pub struct Case {
    /// Such as `/cloud.v1.InstanceService/GetInstance`.
    pub path: String,
    /// Headers, `:path` and the like apart.
    pub headers: http::HeaderMap,
    /// What is sent.
    pub body: Bytes,
    /// The service can parse all of it.
    pub parses: bool,
    /// Its bytes were changed at random.
    pub damaged: bool,
    /// The answer is a stream: it need not end.
    pub streams: bool,
    /// The call says that it is gRPC.
    pub grpc: bool,
    /// The headers are more than a server takes: it may close the connection.
    pub large: bool,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers = self.headers.iter().map(|(name, value)| (name, short(value.as_bytes())));
        f.debug_struct("Case")
            .field("path", &self.path)
            .field("headers", &headers.collect::<Vec<_>>())
            .field("body", &short(&self.body))
            .field("parses", &self.parses)
            .finish_non_exhaustive()
    }
}

/// The beginning of some bytes, readable.
fn short(bytes: &[u8]) -> String {
    const SHOWN: usize = 200;
    let more = if bytes.len() > SHOWN { format!("… ({} bytes)", bytes.len()) } else { String::new() };
    format!("{}{more}", bytes[..bytes.len().min(SHOWN)].escape_ascii())
}

impl Fuzzer {
    /// Makes cases until the time is over; the first that fails ends it.
    ///
    /// # Errors
    /// A case failed; says which, and how to repeat it.
    pub async fn run(&self, chaos: &Chaos) -> anyhow::Result<Tally> {
        if let Some(case) = chaos::given(CASE) {
            let answer = self.try_case(chaos, case).await?;
            println!("case {case}: {answer:?}");
            return Ok(Tally::default());
        }
        let mut callers = JoinSet::new();
        let fuzzer = Arc::new(self.clone());
        for caller in 0..CALLERS {
            let (fuzzer, chaos) = (Arc::clone(&fuzzer), chaos.clone());
            callers.spawn(async move {
                let mut tally = Tally::default();
                let mut case = caller;
                while chaos.goes_on() {
                    let answer = fuzzer.try_case(&chaos, case).await?;
                    tally.calls += 1;
                    tally.ok += u64::from(answer.code == Some(0));
                    case += CALLERS;
                }
                anyhow::Ok(tally)
            });
        }
        let mut all = Tally::default();
        while let Some(tally) = callers.join_next().await {
            let tally = tally??;
            all = Tally { calls: all.calls + tally.calls, ok: all.ok + tally.ok };
        }
        println!("{} calls, {} of them OK", all.calls, all.ok);
        // One that is refused everywhere has tested the refusal only.
        ensure!(all.ok * 50 > all.calls, "{all:?}: too few calls were understood for this to test anything");
        Ok(all)
    }

    async fn try_case(&self, chaos: &Chaos, number: u64) -> anyhow::Result<Answer> {
        let case = self.case(&mut chaos.random(number));
        let context = || format!("{} {CASE}={number}: {case:?}", chaos.again());
        let answer = tokio::time::timeout(LIMIT, self.target.call(&case)).await;
        let answer = answer.with_context(|| format!("no answer within {LIMIT:?}")).with_context(context)?;
        let answer = match answer {
            // tonic's own reflection says back all of a symbol that it does not find, and our client refuses an answer as long as that.
            Err(error)
                if case.path.starts_with("/grpc.reflection.") && format!("{error:?}").contains("header_list") =>
            {
                return Ok(Answer::default());
            }
            Err(_) if case.large => return Ok(Answer::default()),
            answer => answer.with_context(context)?,
        };
        judge(&case, &answer).with_context(context)?;
        Ok(answer)
    }

    /// The case that these random numbers make.
    #[must_use]
    pub fn case(&self, random: &mut StdRng) -> Case {
        let mut method = self.method(random);
        if MethodOptions::read(method).not_built && random.random_bool(0.9) {
            // There is little to find in what refuses everything.
            method = self.method(random);
        }
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let input = method.input();
        let several = method.is_client_streaming() || random.random_bool(0.01);
        let count = if several { random.random_range(0..4) } else { 1 };
        let (mut body, mut parses, mut damaged) = (Vec::new(), several == method.is_client_streaming(), false);
        for _ in 0..count {
            let mut bytes = message::random(random, &input, &self.words);
            if random.random_bool(0.12) {
                message::damage(random, &mut bytes);
                damaged = true;
            }
            parses &= DynamicMessage::decode(input.clone(), &bytes[..]).is_ok();
            parses &= wire::frame(random, &bytes, &mut body);
        }
        if random.random_bool(0.03) {
            // Cut anywhere.
            body.truncate(random.random_range(0..=body.len()));
            parses = false;
        }
        let wire::Headers { headers, grpc, large } = wire::headers(random, self.key.as_deref());
        Case { path, headers, body: body.into(), parses, damaged, streams: method.is_server_streaming(), grpc, large }
    }

    fn method(&self, random: &mut StdRng) -> &MethodDescriptor {
        &self.methods[random.random_range(0..self.methods.len())]
    }
}

/// Sees that an answer is one that a sound server gives.
///
/// # Errors
/// It is not; says why.
pub fn judge(case: &Case, answer: &Answer) -> anyhow::Result<()> {
    if !case.grpc {
        // What is not built says so over plain HTTP too.
        ensure!(answer.http < 500 || answer.http == 501, "{answer:?}: a server error");
        return Ok(());
    }
    ensure!(answer.http < 500, "{answer:?}: a server error");
    if answer.http != 200 {
        // Refused before gRPC: headers too large, say.
        ensure!((400..500).contains(&answer.http), "{answer:?}: neither gRPC nor a refusal");
        return Ok(());
    }
    let Some(code) = answer.code else {
        ensure!(case.streams && answer.cut_off, "{answer:?}: the answer has no status");
        return Ok(());
    };
    ensure!((0..=16).contains(&code), "{answer:?}: there is no such code");
    let bug = match code {
        UNKNOWN | DATA_LOSS => true,
        INTERNAL => case.parses && !(case.damaged && answer.message.starts_with(UNPARSED)),
        _ => false,
    };
    ensure!(!bug, "{answer:?}: no caller may be able to cause this");
    Ok(())
}
