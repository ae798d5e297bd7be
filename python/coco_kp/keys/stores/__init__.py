"""What a key reference names, opened: each kind is imported only when it is named.

A *store* keeps KEKs, whose bytes pass through this process. A *wrapping key* never leaves its KMS
or HSM, which wraps and unwraps for us. Credentials come from each vendor's usual environment. All
calls have deadlines, and say in words of their own what failed: no credentials, access denied,
throttled, disabled, wrong region, sealed, expired, PIN wrong or locked.
"""
