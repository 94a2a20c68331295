//! A cloud with one host that is UP, and requests to its public port.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::{Router, body::Body, http::Request, response::Response};
use bytes::Bytes;
use cloud_core::{
    model::{AgentRole, HostCapacity, Labels, Meta, Pool, Snapshot, SnapshotStatus, Volume},
    ports::{BackendError, Store, Tx},
    services::{HostRegistry, JoinService, JoinSettings, RegisterInput, Services, Settings, bootstrap},
};
use cloud_domain::{HostId, InstanceId, SessionId};
use cloud_service_kit::{
    health::Readiness,
    metrics::Metrics,
    server::{Connection, Peer},
};
use futures::{StreamExt, stream};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::{
    adapters::{
        images::{ImageFiles, ImageOptions, Probing},
        pki::Authorities,
        sql::SqlStore,
    },
    handlers::{ConsoleLine, Consoles},
    http::{CallRate, PublicApi},
};

pub const KEY: &str = "tck_0123456789abcdef0123456789abcdef";

pub struct Cloud {
    pub dir: TempDir,
    pub store: SqlStore,
    pub router: Router,
    pub readiness: Readiness,
}

/// Guests that greet, and then say what they hear.
struct Echo;

/// So many bytes of a console log make the gateway panic.
pub const PANIC: u32 = 13;

#[async_trait]
impl Consoles for Echo {
    async fn log(&self, _: HostId, _: InstanceId, max_bytes: u32) -> Result<Vec<u8>, BackendError> {
        assert_ne!(max_bytes, PANIC, "secret detail");
        Ok(format!("at most {max_bytes} \u{1b}[31mbytes").into_bytes().into_iter().chain([0xff]).collect())
    }

    async fn open(&self, _: HostId, _: InstanceId) -> Result<ConsoleLine, BackendError> {
        let (input, heard) = mpsc::channel(4);
        let greeting = stream::iter([Ok(Bytes::from_static(b"login: "))]);
        // A guest that hears "bye" ends.
        let echo = ReceiverStream::new(heard).take_while(|data: &Bytes| std::future::ready(data != "bye")).map(Ok);
        Ok(ConsoleLine { input, output: greeting.chain(echo).boxed() })
    }
}

impl Cloud {
    pub async fn new() -> Self {
        Self::with_rate(CallRate { per_second: 0, burst: 0 }).await
    }

    /// Where each key may call only so often.
    pub async fn with_rate(calls: CallRate) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SqlStore::open(&format!("sqlite:{}", dir.path().join("c.db").display())).await.unwrap();
        let options = ImageOptions {
            dir: dir.path().join("images"),
            import_dir: None,
            max_bytes: 1 << 20,
            allow_private: false,
            timeout: Duration::from_secs(5),
            bucket: None,
        };
        let images =
            Arc::new(ImageFiles::with(options, store.identity().0, Probing::Header, Arc::new(|_| false)).unwrap());
        let registry = Arc::new(HostRegistry::new(Duration::from_secs(60)));
        let settings = Settings { stop_wait: Duration::from_millis(50), ..Settings::default() };
        let mut services = Services::new(store.clone(), Arc::clone(&registry), images.clone(), settings);
        let day = Duration::from_secs(24 * 3600);
        let authorities = Authorities::built_in(&store, &dir.path().join("master.key"), day, 1000 * day).await.unwrap();
        let joining = JoinSettings { addresses: vec!["gateway.test:8443".to_owned()], ..JoinSettings::default() };
        services.joins = JoinService::new(store.clone(), Arc::clone(&registry), Arc::new(authorities), joining);
        bootstrap(&store, KEY).await.unwrap();
        host(&services).await;
        let readiness = Readiness::new(&["database"]);
        let api = PublicApi {
            services,
            registry,
            store: store.clone(),
            images,
            consoles: Arc::new(Echo),
            backups: Arc::new(store.clone()),
            restart: CancellationToken::new(),
            public_url: "http://cloud.test/".to_owned(),
            calls,
            readiness: readiness.clone(),
            metrics: Metrics::new("api-gateway").unwrap(),
        };
        Self { router: api.router().unwrap(), dir, store, readiness }
    }

    /// With an image called `tiny` that is READY.
    pub async fn with_image() -> Self {
        let cloud = Self::new().await;
        let answer = cloud.send("POST", "/images:upload?name=tiny&visibility=PUBLIC", vec![0; 4096]).await;
        assert_eq!(answer.status, 201, "{}", answer.json);
        cloud
    }

    /// Any request, from another machine unless it says otherwise.
    pub async fn raw(&self, mut request: Request<Body>) -> Response {
        let peer = Peer::Tcp(Some("192.0.2.7:4711".parse().unwrap()));
        if request.extensions().get::<Arc<Connection>>().is_none() {
            request.extensions_mut().insert(Arc::new(connection(peer)));
        }
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// An authenticated request.
    pub async fn send(&self, method: &str, path: &str, body: impl Into<Body>) -> Answer {
        let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {KEY}"));
        Answer::read(self.raw(request.body(body.into()).unwrap()).await).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, Body::empty()).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, body.to_string()).await
    }

    /// A snapshot of a volume, which has its place on `h1` from here on.
    pub async fn snapshot(&self, volume: &str, name: &str) -> Value {
        let id = |json: &Value| json["id"].as_str().unwrap().parse::<uuid::Uuid>().unwrap();
        let host: HostId = id(&self.get("/hosts/h1").await.json).into();
        let volume = id(&self.get(&format!("/volumes/{volume}")).await.json);
        let mut volume: Volume = self.store.get(volume).await.unwrap().unwrap();
        (volume.host, volume.host_name) = (Some(host), "h1".into());
        let project = (volume.meta.project, volume.meta.project_name.clone());
        let snapshot = Snapshot {
            meta: Meta::new(uuid::Uuid::new_v4(), project.0, &project.1, name, Labels::new()),
            volume: volume.id(),
            volume_name: volume.meta.name.clone(),
            size: volume.size,
            status: SnapshotStatus::Available,
            status_reason: String::new(),
            host,
            host_name: "h1".into(),
            pool: "default".into(),
            data_missing: false,
        };
        let mut tx = self.store.begin().await.unwrap();
        tx.update(&mut volume).await.unwrap();
        tx.insert(&snapshot).await.unwrap();
        tx.commit().await.unwrap();
        self.get(&format!("/snapshots/{name}")).await.json
    }

    pub async fn launch(&self, name: &str) -> Value {
        let answer = self.post("/instances", json!({"name": name, "image": "tiny", "instance_type": "tiny"})).await;
        assert_eq!(answer.status, 201, "{}", answer.json);
        answer.json
    }

    /// Says that an instance runs, as a reconciler would.
    pub async fn runs(&self, instance: &Value) {
        use cloud_core::{
            model::Instance,
            ports::{Store, Tx},
        };
        let id = instance["id"].as_str().unwrap().parse().unwrap();
        let mut tx = self.store.begin().await.unwrap();
        let mut row: Instance = tx.get(id).await.unwrap().unwrap();
        row.status = cloud_domain::InstanceStatus::Running;
        tx.update(&mut row).await.unwrap();
        tx.commit().await.unwrap();
    }
}

pub fn connection(peer: Peer) -> Connection {
    Connection { peer, tls: false, certificates: Vec::new(), shutdown: tokio_util::sync::CancellationToken::new() }
}

async fn host(services: &Services<SqlStore>) {
    let host = HostId::random();
    for role in AgentRole::ALL {
        let capacity = HostCapacity {
            vcpus: 4,
            memory_mib: 8192,
            accelerator: "tcg".into(),
            hypervisor: "QEMU 10.0.2".into(),
            architecture: "x86_64".into(),
            pools: vec![Pool {
                name: "default".into(),
                backend: "directory".into(),
                total_bytes: 100 << 30,
                free_bytes: 60 << 30,
            }],
            datapath: "netdev".into(),
            switch_version: "Open vSwitch 3.1.0".into(),
            tunnel_address: String::new(),
            load: [12, 34, 56],
        };
        let input = RegisterInput {
            host,
            host_name: "h1".into(),
            role,
            session: SessionId::random(),
            endpoint: format!("unix:/nowhere/{}.sock", role.as_str()),
            version: "0.1.0".into(),
            boot_id: "b".into(),
            capacity,
        };
        services.hosts.register(input).await.unwrap();
    }
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
    pub json: Value,
}

impl Answer {
    pub async fn read(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 22).await.unwrap();
        let text = String::from_utf8_lossy(&body).into_owned();
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Self { status: parts.status, headers: parts.headers, text, json }
    }
}

/// Replaces what is new in every run: ids, times, addresses made from ids.
pub fn stable(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| {
                let fixed = match (key.as_str(), value) {
                    (_, Value::String(text)) if key.ends_with("_at") && !text.is_empty() => json!("[time]"),
                    ("mac", _) => json!("[mac]"),
                    // Goes up with every transaction.
                    ("revision", _) => json!("[revision]"),
                    _ => stable(value),
                };
                (key.clone(), fixed)
            })
            .collect(),
        Value::Array(all) => all.iter().map(stable).collect(),
        Value::String(text) => json!(without_ids(text)),
        other => other.clone(),
    }
}

fn without_ids(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        if rest.get(..36).is_some_and(|id| id.parse::<InstanceId>().is_ok()) {
            out.push_str("[id]");
            rest = &rest[36..];
        } else {
            let next = rest.chars().next().unwrap();
            out.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    out
}
