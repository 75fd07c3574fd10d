//! Authentication between a node and its bucket: trusted CAs, and credentials from every source.

use anyhow::Result;
use entrepot_config::{Bucket, BucketConfig, BucketState, BucketStatus, NodeStatus};
use entrepot_e2e::node::Plan;
use entrepot_e2e::pki::Authority;
use entrepot_e2e::push::Image;
use entrepot_e2e::s3::{ACCESS_KEY, REGION, S3, SECRET_KEY, node_bucket};
use entrepot_e2e::servers::{Minio, OpenId, Versitygw};
use entrepot_e2e::{Content, Node, wait};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// Time limit for a node to use new credentials: it checks key files every five seconds, and its
/// bucket for `/status` at the same interval.
const SEEN: Duration = Duration::from_secs(20);

/// A node over that bucket with a short retry budget.
fn plan(bucket: Bucket) -> Plan {
    Plan::over(bucket).with(|config| config.bucket.retry_budget = "500ms".parse().unwrap())
}

/// The bucket of that server for a node without its own credentials.
fn anonymous(server: &S3, authority: Option<PathBuf>) -> Bucket {
    let keys = TempDir::new().unwrap();
    let mut bucket = node_bucket(&server.endpoint, keys.path()).unwrap();
    let BucketConfig::S3(s3) = &mut bucket.backend else { panic!("not S3: {bucket:?}") };
    (s3.ca_file, s3.credentials) = (authority, None);
    bucket
}

/// The plan with these environment variables, and without a metadata service for credentials.
fn inside(mut plan: Plan, environment: &[(&str, &str)]) -> Plan {
    let environment = environment.iter().chain([&("AWS_EC2_METADATA_DISABLED", "true")]);
    plan.environment.extend(environment.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    plan
}

/// Pushes an image through one node and pulls it through another with an empty store.
async fn serves(plan: Plan) -> Node {
    let node = plan.clone().start().await.unwrap();
    let image = Image::fresh(&[1000, 20 << 20]);
    node.registry.push_image("identity/app", "v1", &image).await.unwrap();
    let other = plan.start().await.unwrap();
    other.registry.pull_image("identity/app", "v1", &image).await.unwrap();
    node
}

async fn status(node: &Node) -> BucketStatus {
    let reply = node.operations().get("/status").await.unwrap().expect(200).unwrap();
    serde_json::from_slice::<NodeStatus>(&reply.body).unwrap().bucket
}

/// Checks that the node keeps serving, reports the state, and tells clients to retry.
async fn is_refused(node: &mut Node, state: BucketState, why: &str) {
    let reply = node.registry.try_push("identity/app", &Content::fresh(1000)).await.unwrap();
    assert_eq!((reply.status, reply.code().as_deref()), (503, Some("UNAVAILABLE")), "{reply:?}");
    assert!(reply.header("retry-after").is_some(), "{reply:?}");
    let told = status(node).await;
    assert_eq!(told.state, state, "{told:?}");
    assert!(told.message.contains(why), "{told:?}");
    let log = node.log();
    assert!(log.contains(why) && !log.contains("panicked"), "{log}");
    assert!(!node.has_ended().unwrap());
    node.operations().get("/readyz").await.unwrap().expect(200).unwrap();
}

async fn pushes(node: &Node) -> bool {
    let reply = node.registry.try_push("identity/app", &Content::fresh(1000)).await.unwrap();
    assert!(matches!(reply.status, 201 | 503), "{reply:?}");
    reply.status == 201
}

/// Whether the bucket still rejects the node.
async fn is_denied(node: &Node) -> bool {
    !pushes(node).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_the_ca_of_its_bucket_pushes_and_pulls() -> Result<()> {
    let folder = TempDir::new()?;
    let authority = Authority::new(folder.path())?;
    let server = Versitygw::over_tls(&authority).await?;
    let mut bucket = node_bucket(&server.s3.endpoint, folder.path())?;
    if let BucketConfig::S3(s3) = &mut bucket.backend {
        s3.ca_file = Some(authority.certificate());
    }
    serves(plan(bucket)).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_the_right_ca_cannot_connect_and_reports_it() -> Result<()> {
    let (folder, foreign) = (TempDir::new()?, TempDir::new()?);
    let server = Versitygw::over_tls(&Authority::new(folder.path())?).await?;
    let another = Authority::new(foreign.path())?;
    for authority in [None, Some(another.certificate())] {
        let mut bucket = node_bucket(&server.s3.endpoint, folder.path())?;
        if let BucketConfig::S3(s3) = &mut bucket.backend {
            s3.ca_file = authority;
        }
        let mut node = plan(bucket).start().await?;
        is_refused(&mut node, BucketState::Unreachable, "invalid peer certificate").await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_aws_environment_provides_what_the_configuration_leaves_out() -> Result<()> {
    let server = Versitygw::start().await?;
    let mut bucket = anonymous(&server.s3, None);
    if let BucketConfig::S3(s3) = &mut bucket.backend {
        (s3.region, s3.endpoint) = (None, None);
    }
    let place = [("AWS_REGION", REGION), ("AWS_ENDPOINT_URL_S3", server.s3.endpoint.as_str())];
    let keys = [("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)];
    serves(inside(plan(bucket.clone()), &[place, keys].concat())).await;
    let mut nameless = inside(plan(bucket.clone()), &place).start().await?;
    is_refused(&mut nameless, BucketState::NoCredentials, "credentials").await;
    let false_keys = [keys[0], ("AWS_SECRET_ACCESS_KEY", "a-guess")];
    let mut stranger = inside(plan(bucket), &[place, false_keys].concat()).start().await?;
    is_refused(&mut stranger, BucketState::Denied, "SignatureDoesNotMatch").await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_files_are_rotated_while_the_node_runs() -> Result<()> {
    let (server, keys) = (Versitygw::with_users().await?, TempDir::new()?);
    let bucket = node_bucket(&server.s3.endpoint, keys.path())?;
    let rotate = |user: &str, secret: &str| {
        fs::write(keys.path().join("access-key-id"), user)?;
        fs::write(keys.path().join("secret-access-key"), secret)
    };
    server.add_user("first", "first-secret")?;
    server.add_user("second", "second-secret")?;
    rotate("first", "first-secret")?;
    let mut node = serves(plan(bucket)).await;
    server.remove_user("first")?;
    is_refused(&mut node, BucketState::Denied, "InvalidAccessKeyId").await;
    rotate("second", "second-secret")?;
    wait::until("the node uses the second keys", SEEN, || pushes(&node)).await?;
    Ok(())
}

/// What a cloud's webhook injects into a pod: environment variables and a token file.
struct Webhook {
    token: PathBuf,
    provider: OpenId,
}

impl Webhook {
    async fn new(folder: &Path) -> Result<Webhook> {
        Ok(Webhook { token: folder.join("token"), provider: OpenId::start().await? })
    }

    /// Renews the token, as the kubelet does from time to time.
    fn renew(&self, lifetime: Duration) -> Result<()> {
        Ok(fs::write(&self.token, self.provider.token("system:serviceaccount:registry:images", lifetime)?)?)
    }

    /// A plan for a server that has both the roles and the buckets.
    fn plan(&self, server: &Minio, authority: &Authority, role: &str) -> Plan {
        let bucket = anonymous(&server.s3, Some(authority.certificate()));
        let environment = [
            ("AWS_WEB_IDENTITY_TOKEN_FILE", self.token.to_str().unwrap()),
            ("AWS_ROLE_ARN", role),
            ("AWS_ENDPOINT_URL_STS", &server.s3.endpoint),
        ];
        inside(plan(bucket), &environment)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_identity_token_is_exchanged_again_when_the_credentials_expire() -> Result<()> {
    let folder = TempDir::new()?;
    let authority = Authority::new(folder.path())?;
    let webhook = Webhook::new(folder.path()).await?;
    let server = Minio::with_roles(&authority, &webhook.provider).await?;

    let mut node = webhook.plan(&server, &authority, Minio::ROLE).start().await?;
    is_refused(&mut node, BucketState::NoCredentials, webhook.token.to_str().unwrap()).await;
    webhook.renew(Duration::from_secs(8))?;
    assert!(pushes(&node).await, "cannot push with the token: {}", node.log());
    // The credentials expire with the token.
    wait::until("the first token has expired", SEEN, || is_denied(&node)).await?;
    wait::until("the status reports it", SEEN, || async { status(&node).await.state != BucketState::Reachable })
        .await?;
    is_refused(&mut node, BucketState::NoCredentials, "expired").await;
    webhook.renew(Duration::from_secs(3600))?;
    assert!(pushes(&node).await, "cannot push with the renewed token: {}", node.log());

    serves(webhook.plan(&server, &authority, Minio::ROLE)).await;
    let mut other = webhook.plan(&server, &authority, "arn:minio:iam:::role/another").start().await?;
    is_refused(&mut other, BucketState::NoCredentials, "role/another").await;
    Ok(())
}
