"""Where things lie: paths, places inside packages, hashes of files, and what other libraries say of them."""
