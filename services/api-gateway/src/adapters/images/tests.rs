use std::{
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::symlink,
};

use axum::{
    Router,
    body::Body,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;

/// Half a MiB: a raw disk.
const SIZE: usize = 512 << 10;

fn disk() -> Vec<u8> {
    (0..SIZE).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

fn sha(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

struct Fixture {
    dir: TempDir,
    images: ImageFiles,
}

fn options(dir: &Path) -> ImageOptions {
    ImageOptions {
        dir: dir.join("images"),
        import_dir: Some(dir.join("import")),
        max_bytes: 1 << 20,
        allow_private: false,
        timeout: Duration::from_secs(20),
        bucket: None,
    }
}

/// 127.0.0.1 plays the public internet; 127.0.0.2 what is behind it.
fn near(ip: IpAddr) -> bool {
    ip == IpAddr::V4(Ipv4Addr::LOCALHOST)
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("import")).unwrap();
    let images = ImageFiles::with(options(dir.path()), CloudId::random(), Probing::Header, Arc::new(near)).unwrap();
    Fixture { dir, images }
}

impl Fixture {
    async fn fetch(&self, source: ImageSource) -> Result<ImageFile, FetchError> {
        self.images.fetch(ImageId::random(), &source, None, "").await
    }

    async fn url(&self, url: &str) -> Result<ImageFile, FetchError> {
        self.fetch(ImageSource::Url(url.to_owned())).await
    }

    async fn file(&self, path: &str) -> Result<ImageFile, FetchError> {
        self.fetch(ImageSource::File(path.to_owned())).await
    }

    fn import(&self) -> PathBuf {
        self.dir.path().join("import")
    }

    /// What was left half written.
    fn rest(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("images/incoming")).unwrap().count()
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, FetchError>, why: &str) {
    match result {
        Err(FetchError::Refused(message)) => assert!(message.contains(why), "`{message}` does not say `{why}`"),
        other => panic!("{other:?} instead of a refusal with `{why}`"),
    }
}

#[tokio::test]
async fn a_file_of_the_import_directory_is_copied_and_verified() {
    let f = fixture();
    std::fs::create_dir(f.import().join("debian")).unwrap();
    std::fs::write(f.import().join("debian/12.raw"), disk()).unwrap();
    let id = ImageId::random();
    let source = ImageSource::File("debian/12.raw".into());
    let file = f.images.fetch(id, &source, Some(ImageFormat::Raw), &sha(&disk()).to_uppercase()).await.unwrap();
    assert_eq!((file.format, file.size_bytes, file.virtual_size_bytes), (ImageFormat::Raw, SIZE as u64, SIZE as u64));
    assert_eq!(file.sha256, sha(&disk()));
    assert_eq!(std::fs::read(&file.path).unwrap(), disk());
    let held = f.images.hold(id, &file.sha256, file.size_bytes).await.unwrap().unwrap();
    assert_eq!(held.path(), file.path);
    assert_eq!(f.images.ids().unwrap(), vec![id]);
    f.images.remove(id).await.unwrap();
    f.images.remove(id).await.unwrap();
    assert!(f.images.hold(id, &file.sha256, file.size_bytes).await.unwrap().is_none());
    assert_eq!(f.rest(), 0);
}

#[tokio::test]
async fn no_path_leads_out_of_the_import_directory() {
    let f = fixture();
    let outside = f.dir.path().join("outside.raw");
    std::fs::write(&outside, disk()).unwrap();
    for path in ["../outside.raw", "/etc/passwd", "", ".", "a/../../outside.raw", "a//b", "./a", "a/", "a\0b"] {
        refused(f.file(path).await, "is not the path of a file beneath");
    }
    symlink(&outside, f.import().join("link.raw")).unwrap();
    refused(f.file("link.raw").await, "symbolic link");
    symlink(f.dir.path(), f.import().join("up")).unwrap();
    refused(f.file("up/outside.raw").await, "symbolic link");
    std::fs::create_dir(f.import().join("dir")).unwrap();
    refused(f.file("dir").await, "not a regular file");
    refused(f.file("nothing.raw").await, "does not exist");
    std::fs::write(f.import().join("plain"), "x").unwrap();
    refused(f.file("plain/x").await, "no directory");
    let fifo = f.import().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    refused(f.file("fifo").await, "not a regular file");
    assert_eq!(f.images.ids().unwrap(), vec![]);
    assert_eq!(f.rest(), 0);
}

#[tokio::test]
async fn without_an_import_directory_nothing_is_imported_from_one() {
    let dir = tempfile::tempdir().unwrap();
    let options = ImageOptions { import_dir: None, ..options(dir.path()) };
    let images = ImageFiles::with(options, CloudId::random(), Probing::Header, Arc::new(near)).unwrap();
    let source = ImageSource::File("etc/passwd".into());
    refused(images.fetch(ImageId::random(), &source, None, "").await, "--import-dir");
}

#[tokio::test]
async fn what_is_not_as_announced_is_refused_and_leaves_nothing() {
    let f = fixture();
    let write = |name: &str, bytes: &[u8]| std::fs::write(f.import().join(name), bytes).unwrap();
    write("disk.raw", &disk());
    let source = ImageSource::File("disk.raw".into());
    let id = ImageId::random();
    refused(f.images.fetch(id, &source, None, &sha(b"something else")).await, &sha(&disk()));
    refused(f.images.fetch(id, &source, Some(ImageFormat::Qcow2), "").await, "raw, and qcow2 was expected");
    write("large.raw", &vec![0; (1 << 20) + 512]);
    refused(f.file("large.raw").await, "at most 1048576 are allowed");
    write("empty.raw", b"");
    refused(f.file("empty.raw").await, "empty");
    write("odd.raw", &[1; 700]);
    refused(f.file("odd.raw").await, "multiple of 512");
    let mut packed = disk();
    packed[..2].copy_from_slice(b"\x1f\x8b");
    write("packed.raw", &packed);
    refused(f.file("packed.raw").await, "gzip");
    assert_eq!(f.images.ids().unwrap(), vec![]);
    assert_eq!(f.rest(), 0);
}

#[tokio::test]
async fn an_upload_is_cut_off_at_the_limit_and_leaves_nothing_when_dropped() {
    let f = fixture();
    let mut upload = f.images.begin(ImageId::random()).await.unwrap();
    upload.write(Bytes::from(vec![0; 1 << 20])).await.unwrap();
    refused(upload.write(Bytes::from_static(b"x")).await, "more than the 1048576 bytes");
    assert_eq!(f.rest(), 1);
    drop(upload);
    assert_eq!(f.rest(), 0);
}

#[tokio::test]
async fn what_a_crash_left_is_thrown_away_at_start() {
    let f = fixture();
    let upload = f.images.begin(ImageId::random()).await.unwrap();
    std::mem::forget(upload);
    assert_eq!(f.rest(), 1);
    drop(ImageFiles::with(options(f.dir.path()), CloudId::random(), Probing::Header, Arc::new(near)).unwrap());
    assert_eq!(f.rest(), 0);
}

/// A web server on a loopback address.
async fn web(ip: [u8; 4], router: Router) -> (String, tokio_util::task::AbortOnDropHandle<()>) {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::from(ip), 0)).await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (base, tokio_util::task::AbortOnDropHandle::new(serving))
}

fn redirect(to: String) -> Response {
    (StatusCode::FOUND, [(header::LOCATION, to)]).into_response()
}

fn site(inside: &str) -> Router {
    let inside = inside.to_owned();
    let zeros = || futures::stream::repeat_with(|| Ok::<_, io::Error>(Bytes::from(vec![0; 65536])));
    Router::new()
        .route("/disk.raw", get(|| async { disk() }))
        .route("/there/hop", get(|| async { redirect("../disk.raw".into()) }))
        .route("/hop", get(|| async { redirect("/disk.raw".into()) }))
        .route("/loop", get(|| async { redirect("loop".into()) }))
        .route("/inside", get(move || async move { redirect(format!("{inside}/secret")) }))
        .route("/scheme", get(|| async { redirect("file:///etc/passwd".into()) }))
        .route("/endless", get(move || async move { Body::from_stream(zeros()) }))
        .route(
            "/announced",
            get(|| async { ([(header::CONTENT_LENGTH, "9999999999")], Body::empty()).into_response() }),
        )
        .route("/packed", get(|| async { ([(header::CONTENT_ENCODING, "gzip")], disk()) }))
        .route("/gone", get(|| async { StatusCode::GONE }))
        .route("/busy", get(|| async { StatusCode::SERVICE_UNAVAILABLE }))
}

#[tokio::test]
async fn images_are_fetched_and_redirects_followed() {
    let f = fixture();
    let (base, _web) = web([127, 0, 0, 1], site("")).await;
    for path in ["/disk.raw", "/hop"] {
        assert_eq!(f.url(&format!("{base}{path}")).await.unwrap().sha256, sha(&disk()), "{path}");
    }
    refused(f.url(&format!("{base}/loop")).await, "more than 5 times");
    refused(f.url(&format!("{base}/gone")).await, "410");
    refused(f.url(&format!("{base}/packed")).await, "encoding");
    assert!(matches!(f.url(&format!("{base}/busy")).await, Err(FetchError::Later(m)) if m.contains("503")));
    assert_eq!(f.rest(), 0);
}

#[tokio::test]
async fn what_is_not_public_is_not_asked_not_even_by_a_redirect() {
    let f = fixture();
    let secret = Router::new().route("/secret", get(|| async { disk() }));
    let (inside, _inside) = web([127, 0, 0, 2], secret).await;
    let (base, _web) = web([127, 0, 0, 1], site(&inside)).await;
    refused(f.url(&format!("{inside}/secret")).await, "127.0.0.2, which is not a public address");
    refused(f.url(&format!("{base}/inside")).await, "127.0.0.2, which is not a public address");
    refused(f.url(&format!("{base}/scheme")).await, "must begin with https:// or http://");
    // As the gateway really is: not even the machine itself.
    let real = ImageFiles::open(options(f.dir.path()), CloudId::random()).unwrap();
    for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0x7f.1", "2130706433", "169.254.169.254"] {
        let source = ImageSource::Url(format!("http://{host}:9/x"));
        refused(real.fetch(ImageId::random(), &source, None, "").await, "not a public address");
    }
}

#[tokio::test]
async fn a_body_is_cut_off_at_the_limit_whatever_it_announced() {
    let f = fixture();
    let (base, _web) = web([127, 0, 0, 1], site("")).await;
    refused(f.url(&format!("{base}/endless")).await, "more than the 1048576 bytes");
    assert_eq!(f.rest(), 0);
}

#[test]
fn only_plain_web_addresses_are_urls() {
    for good in ["http://example.org/a.qcow2", "https://example.org:8443/a?b=c", "http://[2606:4700::1]/x"] {
        assert_eq!(check_url(good), Ok(()), "{good}");
    }
    for bad in [
        "",
        "example.org/a",
        "ftp://example.org/a",
        "file:///etc/passwd",
        "http://",
        "https://u:p@example.org/",
        "http://a b/",
    ] {
        assert!(check_url(bad).is_err(), "{bad}");
    }
}
