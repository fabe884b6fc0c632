//! Which cases does a property test try? Always the same ones, each time others, and those that have failed once.

use std::{
    env,
    hash::{BuildHasher as _, Hasher as _, RandomState},
};

use proptest::{
    strategy::Strategy,
    test_runner::{Config, FileFailurePersistence, RngSeed, TestCaseResult, TestRunner},
};

/// Repeats a run: the seed of its fresh cases. `cargo xtask test` prints it.
const VARIABLE: &str = "VSWITCH_SEED";

/// A run of a property test.
pub struct Dice {
    runner: TestRunner,
    seed: u64,
}

/// Of `same` cases that never change, so that what they cover can be asserted, and of `fresh` ones, after those in
/// `tests/regressions/KEPT.txt`, which grows by what fails. Of PROPTEST_CASES, if it is set, each has its share.
pub fn dice(same: u32, fresh: u32, kept: &str) -> [Dice; 2] {
    let config = Config { failure_persistence: None, ..Config::default() };
    let share = |cases: u32| match env::var_os("PROPTEST_CASES") {
        Some(_) => (config.cases * cases / (same + fresh)).max(1),
        None => cases,
    };
    let seed = env::var(VARIABLE).map_or_else(
        |_| RandomState::new().build_hasher().finish(),
        |text| text.parse().unwrap_or_else(|err| panic!("{VARIABLE}={text}: {err}")),
    );
    let path = format!("{}/regressions/{kept}.txt", env!("CARGO_MANIFEST_DIR"));
    // proptest wants the path for ever.
    let kept = FileFailurePersistence::Direct(Box::leak(path.into_boxed_str()));
    [
        Dice::new(2, Config { cases: share(same), ..config.clone() }),
        Dice::new(seed, Config { cases: share(fresh), failure_persistence: Some(Box::new(kept)), ..config }),
    ]
}

impl Dice {
    fn new(seed: u64, config: Config) -> Self {
        Self { runner: TestRunner::new(Config { rng_seed: RngSeed::Fixed(seed), ..config }), seed }
    }

    /// How many cases it tries.
    pub fn cases(&self) -> u32 {
        self.runner.config().cases
    }

    /// Tries them; panics with the smallest that fails.
    pub fn throw<S: Strategy>(mut self, cases: &S, holds: impl Fn(S::Value) -> TestCaseResult) {
        let seed = self.seed;
        self.runner.run(cases, holds).unwrap_or_else(|failure| panic!("{failure}\nwith {VARIABLE}={seed}"));
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, panic::catch_unwind};

    use proptest::{num::u32::ANY, test_runner::TestCaseError};

    use super::*;

    /// What a run that finds nothing tries.
    fn tried(dice: Dice) -> Vec<u32> {
        let tried = RefCell::new(Vec::new());
        dice.throw(&ANY, |case| {
            tried.borrow_mut().push(case);
            Ok(())
        });
        tried.into_inner()
    }

    #[test]
    fn one_half_stays_and_the_other_changes() {
        let (one, other) = (dice(10, 5, "none").map(tried), dice(10, 5, "none").map(tried));
        assert_eq!((one[0].len(), one[1].len()), (10, 5));
        assert_eq!(one[0], other[0]);
        // Unless somebody repeats a run.
        assert_eq!(one[1] == other[1], env::var_os(VARIABLE).is_some());
    }

    #[test]
    fn what_failed_is_tried_again_first() {
        let kept = format!("dice-{}", std::process::id());
        let path = format!("{}/regressions/{kept}.txt", env!("CARGO_MANIFEST_DIR"));
        let fails = |case: u32| if case < 1000 { Ok(()) } else { Err(TestCaseError::fail("too much")) };
        let [_, fresh] = dice(1, 50, &kept);
        let failure = catch_unwind(std::panic::AssertUnwindSafe(|| fresh.throw(&ANY, fails))).unwrap_err();
        let said = failure.downcast_ref::<String>().unwrap();
        assert!(
            said.contains("minimal failing input: 1000") && said.contains("with VSWITCH_SEED="),
            "{said}"
        );
        let again = tried(dice(1, 1, &kept).into_iter().last().unwrap());
        std::fs::remove_file(path).unwrap();
        assert_eq!(again.len(), 2, "the kept case, and a fresh one");
        assert!(again[0] >= 1000, "{again:?}");
    }
}
