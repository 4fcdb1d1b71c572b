from services.sim.seeds import mix


def test_origin_zero_is_splitmix64_from_zero() -> None:
    # The published test vector of SplitMix64 with state 0.
    assert [mix(0, k) for k in range(3)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_neighbouring_origins_share_no_seeds() -> None:
    seeds = [mix(origin, episode) for origin in range(50) for episode in range(50)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert mix(2**64 - 1, 2**64 - 1) < 2**64
