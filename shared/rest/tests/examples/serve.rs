//! Serves the test contract on 127.0.0.1:8099, for tools that read an OpenAPI document:
//! `schemathesis run http://127.0.0.1:8099/openapi.json`.
#[path = "../tests/fixture/mod.rs"]
mod fixture;

use axum::routing::get;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let document = get(|| async { ([("content-type", "application/json")], cloud_rest_tests::OPENAPI) });
    let router = fixture::Server::new().router.route("/openapi.json", document);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8099").await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, router).await?)
}
