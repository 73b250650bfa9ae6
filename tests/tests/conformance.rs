//! Every format that is read and written passes the conformance suite.

use weighbridge_testkit::{alloc::Counting, conformance};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

macro_rules! checks {
    ($($name:ident)*) => {
        $(#[test] fn $name() { conformance::run(stringify!($name)); })*

        #[test]
        fn no_check_of_the_suite_is_left_out() {
            let names: Vec<&str> = conformance::CHECKS.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

checks! {
    dtypes
    shapes
    names
    ten_thousand_tensors
    no_tensors
    over_four_gib
    shared_storage
    nested_values
    chunked_reads
    byte_stable_rewrite
    truncation
    flipped_bits
}
