//! The gateway by script.

mod volumes;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use cloud_contracts::v1::{
    self, Event, Image, Instance, ListEventsRequest, ListEventsResponse, ListInstancesRequest, ListInstancesResponse,
    ListSubnetsRequest, ListSubnetsResponse, ListVpcsRequest, ListVpcsResponse, Subnet, Vpc, instance::Status as State,
    upload_image_request::Message as Upload, watch_instances_response::Change,
};
use futures::StreamExt;
use sha2::{Digest, Sha256};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{
    Code, Request, Response, Status, Streaming,
    codegen::BoxStream,
    transport::{Identity, Server, ServerTlsConfig},
};

use super::Script;

/// A gateway; it ends with the test.
pub struct Fake {
    pub endpoint: String,
    state: Arc<Mutex<Inner>>,
    server: JoinHandle<()>,
}

/// What the gateway knows, and what it was asked.
#[derive(Default)]
pub struct Inner {
    /// By name: what looks at it will see.
    pub instances: HashMap<String, Script>,
    /// The only volume there is, on its way: each look takes it one further, and it stays in the last.
    pub volume: VecDeque<v1::Volume>,
    /// In the order of the list.
    pub listed: Vec<Instance>,
    pub vpcs: Vec<Vpc>,
    pub subnets: Vec<Subnet>,
    pub events: Vec<Event>,
    /// What the next watches tell; those that are not here tell the script of their instance.
    pub watches: VecDeque<Vec<Result<v1::WatchInstancesResponse, Status>>>,
    /// By method: the next calls fail so.
    pub failures: HashMap<&'static str, VecDeque<Status>>,
    /// The bytes of the last upload, and what is answered in place of their SHA-256.
    pub uploaded: Vec<u8>,
    pub sha256: Option<String>,
    /// What a console says first; `None` in `console_echoes` ends the session after it.
    pub console_greeting: Vec<u8>,
    pub console_echoes: bool,
    /// The console log, one for each look.
    pub logs: VecDeque<String>,
    /// Every call: its method, its headers, and the message.
    pub calls: Vec<Call>,
}

#[derive(Debug, Clone)]
pub struct Call {
    pub method: &'static str,
    pub authorization: String,
    pub project: String,
    /// The request id.
    pub once: String,
    pub message: String,
}

#[derive(Clone)]
struct Service(Arc<Mutex<Inner>>);

/// An instance in a state.
pub fn instance(name: &str, state: State) -> Instance {
    Instance {
        id: format!("{:08x}-0000-4000-8000-000000000000", name.len()),
        name: name.to_owned(),
        image: "tiny".to_owned(),
        instance_type: "small".to_owned(),
        status: state.into(),
        desired_status: State::Running.into(),
        host: "h1".to_owned(),
        host_reachable: true,
        etag: "1".to_owned(),
        ..Default::default()
    }
}

/// A refusal.
pub fn status(code: Code, message: &str) -> Status {
    Status::new(code, message)
}

impl Fake {
    pub async fn start() -> Self {
        Self::serve("http", Server::builder()).await
    }

    /// With TLS; answers with the certificate too.
    pub async fn start_with_tls() -> (Self, String) {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let certificate = made.cert.pem();
        let identity = Identity::from_pem(&certificate, made.signing_key.serialize_pem());
        let server = Server::builder().tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
        (Self::serve("https", server).await, certificate)
    }

    async fn serve(scheme: &str, mut server: Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("{scheme}://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(Inner::default()));
        let service = Service(state.clone());
        let router = server
            .add_service(v1::instance_service_server::InstanceServiceServer::new(service.clone()))
            .add_service(v1::volume_service_server::VolumeServiceServer::new(service.clone()))
            .add_service(v1::image_service_server::ImageServiceServer::new(service.clone()))
            .add_service(v1::vpc_service_server::VpcServiceServer::new(service.clone()))
            .add_service(v1::subnet_service_server::SubnetServiceServer::new(service.clone()))
            .add_service(v1::project_service_server::ProjectServiceServer::new(service.clone()))
            .add_service(v1::api_key_service_server::ApiKeyServiceServer::new(service.clone()))
            .add_service(v1::quota_service_server::QuotaServiceServer::new(service.clone()))
            .add_service(v1::event_service_server::EventServiceServer::new(service));
        let server = tokio::spawn(async move {
            router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Self { endpoint, state, server }
    }

    pub fn state(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap()
    }

    /// What looks at this instance will see.
    pub fn script(&self, states: impl IntoIterator<Item = Instance>) {
        let script: Script = states.into_iter().collect();
        self.state().instances.insert(script[0].name.clone(), script);
    }

    /// The next call of this method fails.
    pub fn fail(&self, method: &'static str, status: Status) {
        self.state().failures.entry(method).or_default().push_back(status);
    }

    /// The calls of a method.
    pub fn calls(&self, method: &str) -> Vec<Call> {
        self.state().calls.iter().filter(|call| call.method == method).cloned().collect()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Service {
    /// Writes down a call, and fails it if it shall.
    fn enter<T: std::fmt::Debug>(
        &self,
        method: &'static str,
        request: &Request<T>,
    ) -> Result<MutexGuard<'_, Inner>, Status> {
        let header = |name: &str| {
            request.metadata().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
        };
        let call = Call {
            method,
            authorization: header("authorization"),
            project: header("x-project"),
            once: header("idempotency-key"),
            message: format!("{:?}", request.get_ref()),
        };
        let mut state = self.0.lock().unwrap();
        state.calls.push(call);
        match state.failures.get_mut(method).and_then(VecDeque::pop_front) {
            Some(status) => Err(status),
            None => Ok(state),
        }
    }

    /// A change: answers with the next state of the instance.
    fn step<T: std::fmt::Debug>(
        &self,
        method: &'static str,
        request: &Request<T>,
        id: &str,
    ) -> Result<Response<Instance>, Status> {
        self.enter(method, request)?.look(id).map(Response::new)
    }
}

impl Inner {
    /// What a look at an instance sees, by name or id.
    fn look(&mut self, id: &str) -> Result<Instance, Status> {
        let found = self.instances.values_mut().find(|script| script[0].name == id || script[0].id == id);
        let script = found.ok_or_else(|| Status::not_found(format!("instance `{id}` not found")))?;
        let seen = script[0].clone();
        if script.len() > 1 {
            script.pop_front();
        }
        Ok(seen)
    }
}

impl Inner {
    /// What a watch of an instance tells: where it is on its way, and the rest of it.
    fn steps(&mut self, id: &str) -> Result<Vec<v1::WatchInstancesResponse>, Status> {
        let current = self.look(id)?;
        let script = self.instances.values_mut().find(|script| script[0].id == current.id || script[0].name == id);
        let rest: Vec<_> = script.map(|script| std::mem::take(script).into()).unwrap_or_default();
        self.instances.insert(current.name.clone(), rest.last().cloned().into_iter().collect());
        let mut all = vec![change(Change::Current, Some(current), "")];
        all.push(change(Change::Synced, None, "1.1"));
        let changes = rest.into_iter().zip(2..);
        all.extend(changes.map(|(seen, number)| change(Change::Updated, Some(seen), &format!("1.{number}"))));
        Ok(all)
    }
}

/// A message of a watch.
pub fn change(change: Change, instance: Option<Instance>, token: &str) -> v1::WatchInstancesResponse {
    v1::WatchInstancesResponse { change: change.into(), instance, resume_token: token.to_owned() }
}

fn page<T: Clone>(all: &[T], size: i32, token: &str) -> (Vec<T>, String) {
    let from: usize = token.parse().unwrap_or(0);
    let size = if size == 0 { 50 } else { usize::try_from(size).unwrap() };
    let to = (from + size).min(all.len());
    (all[from..to].to_vec(), if to < all.len() { to.to_string() } else { String::new() })
}

#[tonic::async_trait]
impl v1::instance_service_server::InstanceService for Service {
    async fn launch_instance(&self, request: Request<v1::LaunchInstanceRequest>) -> Result<Response<Instance>, Status> {
        self.step("launch", &request, &request.get_ref().name)
    }
    async fn get_instance(&self, request: Request<v1::GetInstanceRequest>) -> Result<Response<Instance>, Status> {
        self.step("get", &request, &request.get_ref().id)
    }
    async fn start_instance(&self, request: Request<v1::StartInstanceRequest>) -> Result<Response<Instance>, Status> {
        self.step("start", &request, &request.get_ref().id)
    }
    async fn stop_instance(&self, request: Request<v1::StopInstanceRequest>) -> Result<Response<Instance>, Status> {
        self.step("stop", &request, &request.get_ref().id)
    }
    async fn reboot_instance(&self, request: Request<v1::RebootInstanceRequest>) -> Result<Response<Instance>, Status> {
        self.step("reboot", &request, &request.get_ref().id)
    }
    async fn delete_instance(&self, request: Request<v1::DeleteInstanceRequest>) -> Result<Response<Instance>, Status> {
        self.step("delete", &request, &request.get_ref().id)
    }
    async fn attach_volume(&self, request: Request<v1::AttachVolumeRequest>) -> Result<Response<Instance>, Status> {
        self.step("attach_volume", &request, &request.get_ref().id)
    }
    async fn detach_volume(&self, request: Request<v1::DetachVolumeRequest>) -> Result<Response<Instance>, Status> {
        self.step("detach_volume", &request, &request.get_ref().id)
    }
    async fn watch_instances(
        &self,
        request: Request<v1::WatchInstancesRequest>,
    ) -> Result<Response<BoxStream<v1::WatchInstancesResponse>>, Status> {
        let messages = {
            let mut state = self.enter("watch", &request)?;
            let mut messages = state.watches.pop_front().unwrap_or_default();
            if messages.is_empty() && !request.get_ref().id.is_empty() {
                messages = state.steps(&request.get_ref().id)?.into_iter().map(Ok).collect();
            }
            messages
        };
        // What was told comes one by one; then there is no more change.
        let messages = futures::stream::iter(messages).then(|message| async {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            message
        });
        Ok(Response::new(messages.chain(futures::stream::pending()).boxed()))
    }
    async fn list_instances(
        &self,
        request: Request<ListInstancesRequest>,
    ) -> Result<Response<ListInstancesResponse>, Status> {
        let state = self.enter("list", &request)?;
        let (instances, next_page_token) =
            page(&state.listed, request.get_ref().page_size, &request.get_ref().page_token);
        Ok(Response::new(ListInstancesResponse { instances, next_page_token }))
    }
    async fn get_console_url(
        &self,
        request: Request<v1::GetConsoleUrlRequest>,
    ) -> Result<Response<v1::GetConsoleUrlResponse>, Status> {
        drop(self.enter("url", &request)?);
        let expires_at = Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 0 });
        Ok(Response::new(v1::GetConsoleUrlResponse { url: "http://127.0.0.1:1/console?token=t".into(), expires_at }))
    }
    async fn get_console_log(
        &self,
        request: Request<v1::GetConsoleLogRequest>,
    ) -> Result<Response<v1::GetConsoleLogResponse>, Status> {
        let mut state = self.enter("log", &request)?;
        let log = if state.logs.len() > 1 { state.logs.pop_front() } else { state.logs.front().cloned() };
        Ok(Response::new(v1::GetConsoleLogResponse { log: log.unwrap_or_default() }))
    }

    async fn stream_console(
        &self,
        request: Request<Streaming<v1::StreamConsoleRequest>>,
    ) -> Result<Response<BoxStream<v1::StreamConsoleResponse>>, Status> {
        let (greeting, echoes) = {
            let state = self.enter("console", &request)?;
            (state.console_greeting.clone(), state.console_echoes)
        };
        let mut typed = request.into_inner();
        let first = typed.next().await.ok_or_else(|| Status::invalid_argument("nothing came"))??;
        let Some(v1::stream_console_request::Message::Id(_)) = first.message else {
            return Err(Status::invalid_argument("the first message must be the id"));
        };
        let (answer, answers) = mpsc::channel(8);
        tokio::spawn(async move {
            let say = |data: Vec<u8>| Ok(v1::StreamConsoleResponse { data: data.into() });
            if answer.send(say(greeting)).await.is_err() || !echoes {
                return;
            }
            while let Some(Ok(request)) = typed.next().await {
                let Some(v1::stream_console_request::Message::Data(data)) = request.message else { return };
                if answer.send(say(data.to_ascii_uppercase())).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

#[tonic::async_trait]
impl v1::image_service_server::ImageService for Service {
    async fn import_image(&self, request: Request<v1::ImportImageRequest>) -> Result<Response<Image>, Status> {
        drop(self.enter("import", &request)?);
        let name = request.into_inner().name;
        Ok(Response::new(Image {
            id: "i".into(),
            name,
            status: v1::image::Status::Importing.into(),
            ..Default::default()
        }))
    }
    async fn watch_images(
        &self,
        request: Request<v1::WatchImagesRequest>,
    ) -> Result<Response<BoxStream<v1::WatchImagesResponse>>, Status> {
        drop(self.enter("watch_images", &request)?);
        let name = request.into_inner().id;
        let ready = Image { id: "i".into(), name, status: v1::image::Status::Ready.into(), ..Default::default() };
        let told = v1::WatchImagesResponse {
            change: v1::watch_images_response::Change::Current.into(),
            image: Some(ready),
            ..Default::default()
        };
        Ok(Response::new(futures::stream::iter([Ok(told)]).chain(futures::stream::pending()).boxed()))
    }
    async fn get_image(&self, request: Request<v1::GetImageRequest>) -> Result<Response<Image>, Status> {
        drop(self.enter("get_image", &request)?);
        let name = request.into_inner().id;
        Ok(Response::new(Image { id: "i".into(), name, status: v1::image::Status::Ready.into(), ..Default::default() }))
    }
    async fn upload_image(
        &self,
        request: Request<Streaming<v1::UploadImageRequest>>,
    ) -> Result<Response<Image>, Status> {
        drop(self.enter("upload", &request)?);
        let mut messages = request.into_inner();
        let mut header = None;
        let mut bytes = Vec::new();
        while let Some(message) = messages.next().await {
            match message?.message {
                Some(Upload::Header(it)) => header = Some(it),
                Some(Upload::Data(data)) => bytes.extend_from_slice(&data),
                None => return Err(Status::invalid_argument("an empty message")),
            }
        }
        let header = header.ok_or_else(|| Status::invalid_argument("no header"))?;
        let mut state = self.0.lock().unwrap();
        let sha256 = state.sha256.clone().unwrap_or_else(|| hex::encode(Sha256::digest(&bytes)));
        state.uploaded = bytes;
        Ok(Response::new(Image {
            id: "i".into(),
            name: header.name,
            visibility: header.visibility,
            status: v1::image::Status::Ready.into(),
            sha256,
            ..Default::default()
        }))
    }
}

#[tonic::async_trait]
impl v1::vpc_service_server::VpcService for Service {
    async fn list_vpcs(&self, request: Request<ListVpcsRequest>) -> Result<Response<ListVpcsResponse>, Status> {
        let state = self.enter("list_vpcs", &request)?;
        let (vpcs, next_page_token) = page(&state.vpcs, request.get_ref().page_size, &request.get_ref().page_token);
        Ok(Response::new(ListVpcsResponse { vpcs, next_page_token }))
    }
}

#[tonic::async_trait]
impl v1::subnet_service_server::SubnetService for Service {
    async fn create_subnet(&self, request: Request<v1::CreateSubnetRequest>) -> Result<Response<Subnet>, Status> {
        drop(self.enter("create_subnet", &request)?);
        let it = request.into_inner();
        Ok(Response::new(Subnet { name: it.name, vpc: it.vpc, cidr: it.cidr, ..Default::default() }))
    }
    async fn list_subnets(
        &self,
        request: Request<ListSubnetsRequest>,
    ) -> Result<Response<ListSubnetsResponse>, Status> {
        let state = self.enter("list_subnets", &request)?;
        let vpc = &request.get_ref().vpc;
        let id_or_name =
            |subnet: &&Subnet| subnet.vpc == *vpc || state.vpcs.iter().any(|it| it.id == *vpc && it.name == subnet.vpc);
        let subnets = state.subnets.iter().filter(id_or_name).cloned().collect();
        Ok(Response::new(ListSubnetsResponse { subnets, next_page_token: String::new() }))
    }
}

#[tonic::async_trait]
impl v1::event_service_server::EventService for Service {
    async fn list_events(&self, request: Request<ListEventsRequest>) -> Result<Response<ListEventsResponse>, Status> {
        let state = self.enter("list_events", &request)?;
        let (events, next_page_token) = page(&state.events, request.get_ref().page_size, &request.get_ref().page_token);
        Ok(Response::new(ListEventsResponse { events, next_page_token }))
    }
}

#[tonic::async_trait]
impl v1::project_service_server::ProjectService for Service {
    async fn create_project(
        &self,
        request: Request<v1::CreateProjectRequest>,
    ) -> Result<Response<v1::Project>, Status> {
        drop(self.enter("create_project", &request)?);
        let it = request.into_inner();
        Ok(Response::new(v1::Project { id: "p".into(), name: it.name, labels: it.labels, ..Default::default() }))
    }
    async fn delete_project(
        &self,
        request: Request<v1::DeleteProjectRequest>,
    ) -> Result<Response<v1::Project>, Status> {
        drop(self.enter("delete_project", &request)?);
        Ok(Response::new(v1::Project { id: "p".into(), name: request.into_inner().id, ..Default::default() }))
    }
}

#[tonic::async_trait]
impl v1::api_key_service_server::ApiKeyService for Service {
    async fn create_api_key(
        &self,
        request: Request<v1::CreateApiKeyRequest>,
    ) -> Result<Response<v1::CreateApiKeyResponse>, Status> {
        drop(self.enter("create_api_key", &request)?);
        let it = request.into_inner();
        let key = v1::ApiKey { name: it.name, role: it.role, project: "blue".into(), ..Default::default() };
        Ok(Response::new(v1::CreateApiKeyResponse { api_key: Some(key), secret: "tck_one".into() }))
    }
    async fn rotate_api_key(
        &self,
        request: Request<v1::RotateApiKeyRequest>,
    ) -> Result<Response<v1::RotateApiKeyResponse>, Status> {
        drop(self.enter("rotate_api_key", &request)?);
        let key = v1::ApiKey { name: request.into_inner().id, ..Default::default() };
        Ok(Response::new(v1::RotateApiKeyResponse { api_key: Some(key), secret: "tck_two".into() }))
    }
    async fn revoke_api_key(&self, request: Request<v1::RevokeApiKeyRequest>) -> Result<Response<v1::ApiKey>, Status> {
        drop(self.enter("revoke_api_key", &request)?);
        Ok(Response::new(v1::ApiKey { name: request.into_inner().id, ..Default::default() }))
    }
}

#[tonic::async_trait]
impl v1::quota_service_server::QuotaService for Service {
    async fn get_quota(&self, request: Request<v1::GetQuotaRequest>) -> Result<Response<v1::Quota>, Status> {
        drop(self.enter("get_quota", &request)?);
        let (limits, used) = ([("instances".to_owned(), 10)].into(), [("instances".to_owned(), 3)].into());
        Ok(Response::new(v1::Quota { project: request.into_inner().project, limits, used }))
    }
    async fn update_quota(&self, request: Request<v1::UpdateQuotaRequest>) -> Result<Response<v1::Quota>, Status> {
        drop(self.enter("update_quota", &request)?);
        let it = request.into_inner();
        Ok(Response::new(v1::Quota { project: it.project, limits: it.limits, ..Default::default() }))
    }
}
