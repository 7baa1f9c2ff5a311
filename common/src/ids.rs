//! Where ids and randomness come from: one generator per process.

use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::id::RunId;

/// The source of ids and randomness: one generator per process, seeded by the system or by a test.
#[derive(Debug, Clone)]
pub struct Ids(Arc<Mutex<StdRng>>);

impl Ids {
    /// Seeded by the operating system.
    pub fn random() -> Self {
        let mut seed = [0u8; 32];
        // Without entropy no id would be unique: better not to start.
        #[expect(clippy::expect_used, reason = "an operating system without entropy cannot run this")]
        rand::TryRng::try_fill_bytes(&mut rand::rngs::SysRng, &mut seed).expect("operating system gives no entropy");
        Self(Arc::new(Mutex::new(StdRng::from_seed(seed))))
    }

    /// The same ids for the same seed.
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// 122 random bits as text: the id of a publication or the nonce of a claim.
    pub fn unique(&self) -> String {
        uuid::Builder::from_random_bytes(self.draw()).into_uuid().simple().to_string()
    }

    /// A run id that sorts by time (UUIDv7).
    pub fn run_id(&self, now_ms: u64) -> RunId {
        let random: [u8; 16] = self.draw();
        let mut counter = [0u8; 10];
        counter.copy_from_slice(&random[..10]);
        let text = uuid::Builder::from_unix_timestamp_millis(now_ms, &counter).into_uuid().to_string();
        #[expect(clippy::expect_used, reason = "a UUID is made of hexadecimal digits and dashes")]
        RunId::parse(&text).expect("a UUID is a run id")
    }

    /// A number in [0, 1), for jitter.
    pub fn fraction(&self) -> f64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).random::<f64>()
    }

    fn draw(&self) -> [u8; 16] {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).random()
    }
}
