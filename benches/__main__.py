"""Everything that ``make bench`` measures beside criterion's kernels."""

from benches import growth, latency, peers, throughput, wire

if __name__ == "__main__":
    throughput.main()
    print()
    peers.main()
    print()
    latency.main()
    print()
    growth.main()
    print()
    wire.main()  # last, for it needs rights to make a network namespace
