//! The compute-agent daemon. All of it is in the library.

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let config = cloud_service_kit::config::load()?;
    cloud_compute_agent::run(config).await
}
