//! What one hostile client costs the others: each attack runs against a real node, while a client of
//! another network pushes and pulls. Its slowest operations stay near what they are without the
//! attack, and the node's memory stays within its budget.
//!
//! A new attack is one more entry of [`ATTACKS`].

#[path = "hostile/attacks.rs"]
mod attacks;

use attacks::{ATTACKS, Target};
use entrepot_config::{ByteSize, NodeName};
use entrepot_e2e::client::Registry;
use entrepot_e2e::node::Plan;
use entrepot_e2e::push::{IMAGE, Image};
use entrepot_e2e::{Content, Node};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The address of the honest client. The attacks come from 127.0.0.1, which is in another /24.
const HONEST: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1));
/// How much slower an operation may be during an attack.
const FACTOR: u32 = 5;
/// What may come on top: the machine is busy with the attack as well, and content that cannot be stored
/// waits up to 0.5 s until a reader that is behind loses its turn, after those that came before. An
/// operation that waits for a timeout of the node takes 10 s and more.
const ALLOWANCE: Duration = Duration::from_secs(2);
/// The budget of a node, whatever its clients do.
const MEMORY: u64 = 512 << 20;
const ROUNDS: usize = 25;

/// A node with little room and content that it cannot store, which another node pushed.
struct Setting {
    node: Node,
    _pusher: Node,
    _bucket: TempDir,
    target: Target,
}

impl Setting {
    async fn new() -> Setting {
        let bucket = TempDir::new().unwrap();
        let pusher = Plan::over_folder(bucket.path()).start().await.unwrap();
        let large = Content::fresh(40 << 20);
        pusher.registry.push("hostile/large", &large).await.unwrap();
        let plan = Plan::over_folder(bucket.path()).with(|config| {
            config.node.name = NodeName::parse("hostile").unwrap();
            config.store.capacity = Some(ByteSize::mebibytes(16));
        });
        let node = plan.start().await.unwrap();
        let stored = Content::fresh(4 << 20);
        node.registry.push("hostile/stored", &stored).await.unwrap();
        let target = Target {
            host: node.registry.host().to_owned(),
            large: format!("/v2/hostile/large/blobs/{}", large.digest),
            stored: format!("/v2/hostile/stored/blobs/{}", stored.digest),
        };
        Setting { node, _pusher: pusher, _bucket: bucket, target }
    }

    /// The longest time of an operation of the honest client, of a few hundred.
    async fn slowest(&self) -> Duration {
        let registry = Registry::from_address(self.node.registry.url(), HONEST);
        let mut slowest = Duration::ZERO;
        for round in 0..ROUNDS {
            let repository = format!("honest/r{}", round % 5);
            let image = Image::fresh(&[20_000]);
            for blob in image.blobs() {
                let start = Instant::now();
                registry.push(&repository, blob).await.unwrap();
                slowest = slowest.max(start.elapsed());
            }
            let start = Instant::now();
            registry.put_manifest(&repository, "latest", IMAGE, &image.manifest).await.unwrap().expect(201).unwrap();
            slowest = slowest.max(start.elapsed());
            let start = Instant::now();
            let pulled = registry.manifest(&repository, "latest").await.unwrap().expect(200).unwrap();
            slowest = slowest.max(start.elapsed());
            assert_eq!(pulled.header("warning"), None, "a tag is not stale while the bucket works");
            for path in [format!("/v2/{repository}/blobs/{}", image.layers[0].digest), "/v2/_catalog?n=5".to_owned()] {
                let start = Instant::now();
                registry.get(&path).await.unwrap().expect(200).unwrap();
                slowest = slowest.max(start.elapsed());
            }
        }
        slowest
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_attack_of_one_client_takes_the_service_from_others() {
    attacks::allow_many_sockets();
    for (name, attack) in ATTACKS {
        // A node of its own for each attack: a node keeps the memory that an earlier one needed.
        let setting = Setting::new().await;
        setting.slowest().await;
        let quiet = setting.slowest().await;
        setting.node.forget_peak().unwrap();
        let held = attack(&setting.target).await;
        let attacked = setting.slowest().await;
        let memory = setting.node.peak_memory().unwrap();
        println!("{name}: {attacked:.0?} instead of {quiet:.0?}, {} MiB", memory >> 20);
        assert!(attacked < quiet * FACTOR + ALLOWANCE, "{name}: {attacked:?} instead of {quiet:?}");
        assert!(memory < MEMORY, "{name}: the node used {memory} bytes");
        drop(held);
    }
}
