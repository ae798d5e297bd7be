"""Everything that ``make bench`` measures beside criterion's kernels."""

from benches import latency, peers, throughput

if __name__ == "__main__":
    throughput.main()
    print()
    peers.main()
    print()
    latency.main()
