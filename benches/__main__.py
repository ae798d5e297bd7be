"""Everything that ``make bench`` measures beside criterion's kernels."""

from benches import growth, latency, peers, throughput

if __name__ == "__main__":
    throughput.main()
    print()
    peers.main()
    print()
    latency.main()
    print()
    growth.main()
