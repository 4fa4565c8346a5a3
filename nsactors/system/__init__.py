"""This machine: processes, private files, certificates, resources.

::

    processes      processes of this machine: identity, and leftovers of a dead cluster
    private_files  private files and folders of this user, and JSON read from them
    tls            certificates for clusters whose processes encrypt their connections
    resources      resources of this machine, and versions of this process

"""
