//! Consoles and reboots of a real guest.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use cloud_contracts::agent::{
    ConsoleKind, InstanceSpec, OpenConsole, StreamConsoleRequest, StreamConsoleResponse,
    stream_console_request::Message,
};
use cloud_domain::Incarnation;
use support::{Host, LONG, reason, until};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

struct Viewer {
    input: mpsc::Sender<StreamConsoleRequest>,
    output: Streaming<StreamConsoleResponse>,
    seen: String,
}

impl Viewer {
    async fn open(host: &Host, id: &str, kind: ConsoleKind) -> Result<Self, Status> {
        let (input, messages) = mpsc::channel(8);
        let open = OpenConsole { id: id.into(), kind: kind.into() };
        input.send(StreamConsoleRequest { message: Some(Message::Open(open)) }).await.unwrap();
        let output = host.streams().stream_console(ReceiverStream::new(messages)).await?.into_inner();
        Ok(Self { input, output, seen: String::new() })
    }

    async fn types(&self, text: &str) {
        let data = Message::Data(text.to_owned().into());
        self.input.send(StreamConsoleRequest { message: Some(data) }).await.unwrap();
    }

    /// Waits for words that were not shown before.
    async fn shows(&mut self, words: &str) {
        let wait = async {
            loop {
                if let Some(at) = self.seen.find(words) {
                    self.seen.drain(..at + words.len());
                    return;
                }
                let piece = self.output.message().await.unwrap().expect("the console ended");
                self.seen.push_str(&String::from_utf8_lossy(&piece.data));
            }
        };
        timeout(LONG, wait).await.unwrap_or_else(|_| panic!("{words:?} is not shown"));
    }

    /// Waits for the guest's end.
    async fn ends(&mut self) {
        let wait = async { while let Ok(Some(_)) = self.output.message().await {} };
        timeout(LONG, wait).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_viewers_share_a_console_and_the_log_goes_on() {
    let mut host = Host::start().await;
    let spec = host.spec("");
    let id = spec.id.as_str();
    host.ensure(&spec).await.unwrap();
    host.says(id, "tiny: ready", 1).await;

    let mut one = Viewer::open(&host, id, ConsoleKind::Serial).await.unwrap();
    let mut two = Viewer::open(&host, id, ConsoleKind::Serial).await.unwrap();
    one.types("\n").await;
    one.shows("login:").await;
    two.shows("login:").await;
    two.types("root\n").await;
    two.shows("#").await;
    one.types("echo seen-$((40+2))\n").await;
    one.shows("seen-42").await;
    two.shows("seen-42").await;
    host.says(id, "seen-42", 1).await;

    // The screen, at the same time.
    let mut screen = Viewer::open(&host, id, ConsoleKind::Vnc).await.unwrap();
    screen.shows("RFB 003.008\n").await;
    screen.types("RFB 003.008\n").await;

    // Nobody looks; the agent is killed and another one comes: the guest writes on, and its console is there again.
    drop((one, two, screen));
    host.kill_agent();
    host.start_agent().await;
    let mut viewer = Viewer::open(&host, id, ConsoleKind::Serial).await.unwrap();
    viewer.types("echo seen-$((41+2))\n").await;
    viewer.shows("seen-43").await;
    host.says(id, "seen-43", 1).await;

    // Far more output than any buffer on the way holds, with a viewer that does not read.
    let idle = Viewer::open(&host, id, ConsoleKind::Serial).await.unwrap();
    viewer
        .types("i=0; while [ $i -lt 6000 ]; do echo filler filler filler filler $i; i=$((i+1)); done; echo do\"\"ne\n")
        .await;
    viewer.shows("done").await;
    host.says(id, "done", 1).await;
    drop(idle);

    host.stop(id, true).await.unwrap();
    viewer.ends().await;
    let error = Viewer::open(&host, id, ConsoleKind::Serial).await.err().unwrap();
    assert_eq!((error.code(), reason(&error).as_str()), (Code::FailedPrecondition, "NOT_RUNNING"));
    host.says(id, "seen-43", 1).await;
    host.remove(id).await.unwrap();
    assert_eq!(Viewer::open(&host, id, ConsoleKind::Vnc).await.err().unwrap().code(), Code::NotFound);
}

async fn reaches(host: &Host, spec: &InstanceSpec, generation: u64) {
    until("the reboot is done", LONG, async || {
        (host.get(&spec.id).await.ok()?.boot_generation == generation).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_higher_boot_generation_reboots_once() {
    let mut host = Host::start().await;
    let mut spec = host.spec("");
    let domain = format!("cloud-{}", spec.id);
    host.ensure(&spec).await.unwrap();
    host.says(&spec.id, "tiny: ready", 1).await;
    let process = host.libvirt.qemu_pid(&domain);

    spec.boot_generation = 2;
    assert_eq!(host.ensure(&spec).await.unwrap().boot_generation, 1, "the answer does not wait");
    host.ensure(&spec).await.unwrap();
    reaches(&host, &spec, 2).await;
    host.says(&spec.id, "tiny: ready", 2).await;
    assert_eq!(host.ensure(&spec).await.unwrap().boot_generation, 2);

    // The agent dies right after it asked the guest; the next one finishes.
    spec.boot_generation = 3;
    host.ensure(&spec).await.unwrap();
    host.kill_agent();
    host.start_agent().await;
    reaches(&host, &spec, 3).await;
    host.says(&spec.id, "tiny: ready", 3).await;
    assert_eq!(host.libvirt.qemu_pid(&domain), process, "a reboot, not a new start");
    let boots = host.log(&spec.id).await.matches("tiny: ready").count();
    assert!(boots <= 4, "{boots} boots for 2 reboots, one of which a crash may repeat");
    host.remove(&spec.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_does_not_follow_is_reset() {
    let host = Host::start().await;
    let mut spec = host.blank_spec("");
    host.ensure(&spec).await.unwrap();
    spec.boot_generation = 5;
    host.ensure(&spec).await.unwrap();
    reaches(&host, &spec, 5).await;
    assert!(host.agent_log().contains("is reset"), "{}", host.agent_log());

    // Stopping calls a reboot off.
    spec.boot_generation = 6;
    host.ensure(&spec).await.unwrap();
    host.stop(&spec.id, true).await.unwrap();
    assert_eq!(host.get(&spec.id).await.unwrap().boot_generation, 5);
    spec.incarnation = Incarnation::random().to_string();
    assert_eq!(host.ensure(&spec).await.unwrap().boot_generation, 6);
    host.remove(&spec.id).await.unwrap();
}
